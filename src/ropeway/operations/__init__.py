"""What runs beside the jobs: whom to tell of them."""
