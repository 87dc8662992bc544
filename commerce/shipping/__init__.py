"""From paid to the door: parcels, carriers, tracking, the desk."""
