"""Changes of sales after their creation, and the deletion of drafts."""
