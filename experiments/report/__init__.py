"""The page of `classact compare`, its charts and its tables. Begin with `report.py`; imports `compare/`."""
