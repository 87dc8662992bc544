"""Stock and limit on their way back: the first work in which the row is the job."""
