"""Where models and data are read from: folders, the Hub and S3, behind the same few calls."""
