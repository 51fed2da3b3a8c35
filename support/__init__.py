"""What every program needs and no paper tells: errors, files, flags, devices, encoders, pictures."""
