"""Compares the service of the formula with orphand's own property list: compare-service.py FORMULA.json FILE.plist"""
import json
import plistlib
import sys

# The keys that the words of a formula cannot express, and the label, which Homebrew chooses.
ONLY_OURS = {
    "Label",
    "ThrottleInterval",
    "LowPriorityBackgroundIO",
    "ExitTimeOut",
    "MaterializeDatalessFiles",
    "Umask",
    # Homebrew writes the same list by itself.
    "LimitLoadToSessionType",
    "StandardErrorPath",
}

with open(sys.argv[1]) as file:
    formula = json.load(file)
with open(sys.argv[2], "rb") as file:
    ours = plistlib.load(file)

program = ours["ProgramArguments"][0]
theirs = {
    "ProgramArguments": [program, *formula.pop("run")[1:]],
    "RunAtLoad": formula.pop("run_at_load"),
    "KeepAlive": {"SuccessfulExit": formula.pop("keep_alive")["successful_exit"]},
    "ProcessType": formula.pop("process_type").capitalize(),
    "Nice": formula.pop("nice"),
    "StandardOutPath": formula.pop("log_path"),
}
# The formula logs to the folder of Homebrew. No program creates the other one before launchd needs it.
formula.pop("error_log_path")
compared = {key: value for key, value in ours.items() if key not in ONLY_OURS}
if theirs != compared or formula:
    sys.exit(f"error: the formula has {theirs} and {formula},\n       orphand service print has {compared}")
print(f"the formula and orphand service print agree on {', '.join(compared)}")
