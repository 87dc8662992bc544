"""What Floodgate is compared with, each as its users would run it."""
