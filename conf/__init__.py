"""The settings of clipadapt as plain YAML, one file per name; ships in the wheel as `clipadapt.conf`."""
