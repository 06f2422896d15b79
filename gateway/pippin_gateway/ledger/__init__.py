"""What keys have used: noted by every gateway, and added up in Redis where several count."""
