"""Working calendars: hours by weekday, public holidays, make-up working days, own exceptions."""
