"""The chapters executed and checked: `make course`, or `python tools/course --help`."""
