"""The Hub and S3 from near: who we are there, what their faults mean, and when to try again."""
