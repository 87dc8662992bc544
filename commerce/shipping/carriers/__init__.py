"""The carriers that the shop has agreed with, made from what the settings say of each."""
