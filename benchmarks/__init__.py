"""What Kulvert costs, as ratios to the direct way, measured in one run (`make bench`)."""
