"""Rights of support staff: up to which amount a person decides, and which certificates that takes."""
