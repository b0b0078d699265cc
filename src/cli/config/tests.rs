//! Tests for reading the file, and for the error messages.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use orphand::core::policy::{Action, Graces, Open, Policy, SoleCopy};
use orphand::core::retention::Limits;
use orphand::core::temp_name::{Names, OwnWriters, WriterGrammar};
use orphand::watch::CLOSE_EVENTS;
use proptest::prelude::*;

use super::error::SettingsError;
use super::keys::template_lines;
use super::schema::{AlertSettings, JournalSettings, MetricsSettings, WatchRule};
use super::*;
use crate::cli::choices::{ActionArg, ClosedArg, HotArg, LearnArg, LogLevel, OpenArg, SoleCopyArg};

#[path = "../../../tests/fuzzed/config.rs"]
mod fuzzed;

const HOME: &str = "/home/ann";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("c.toml"), Some(Path::new(HOME)))
}

/// Every key, with values other than the defaults. `closed = "settled"` is in other tests, because not every system
/// supports it.
const FULL: &str = r#"
[defaults]                    # é
names = ["*.tmp", '*.part']
writers = ["git"]
exclude = ["cache", "a/*.tmp"]
unless_open = "~/.app/./lock"
recursive = true
grace = "30s"
fixed_name_grace = "2h"
closed = "orphan"
open = "quarantine"
sole_copy = "keep"
action = "report"
hot = "watch"
learn = "take"
network = ["nfs4"]
broad = false
broad_names = true

[quarantine]
keep = "3d"
percent = 0x5
min_free = "12%"

[journal]
max_size = "500kB"

[log]
file = "~/logs/orphand.log"
max_size = "2MB"
level = "debug"
leaks = "1s"

[metrics]
textfile = "/srv/metrics/orphand.prom"
every = "1m"

[alert]
command = ["notify-send", "orphand"]
every = "2h"
leaks = 100
bytes = "1GB"
min_free = "7%"

[[watch]]
path = "~/.app/sessions"
writers = []
grace = "100ms"

[[watch]]
path = "/srv//app/./x/"
action = "delete"
unless_open = "./../LOCK"
"#;

#[test]
#[rustfmt::skip] // one row a line
fn errors_have_a_position_and_propose_a_value() {
    let rows: &[(&str, &str)] = &[
        // Errors of the TOML parser.
        ("[defaults]\ngrace = 30s\n", "2:9: text must be in quotes; did you mean \"30s\"?"),
        ("[defaults]\nopen = keep", "2:8: text must be in quotes; did you mean \"keep\"?"),
        ("[defaults]\nrecursive = True", "2:13: \"True\" must be in lower case; did you mean true?"),
        ("[defaults]\nnames = [tmp]", "2:10: text must be in quotes; did you mean \"tmp\"?"),
        ("[defaults]\ngrace = 1.5s", "2:12: invalid float, expected nothing"),
        ("[defaults]\r\ngrace = \r\n", "2:9: the value is missing"),
        ("[defaults\n", "1:10: unclosed table, expected `]`"),
        ("[defaults]\n\n[defaults]", "3:2: duplicate key"),
        ("[defaults]\nopen = 'kéép' x", "2:15: unexpected key or value, expected newline, `#`"),
        // Sections.
        ("[default]\n", "1:2: unknown section \"default\"; did you mean [defaults]?"),
        ("[[watches]]\n", "1:3: unknown section \"watches\"; did you mean [[watch]]?"),
        ("\n  [history]\nx = 1", "2:4: unknown section \"history\"; did you mean [defaults], [[watch]], [[writer]], [quarantine], [journal], [log], [metrics] or [alert]?"),
        ("journal = '/x'", "1:1: unknown section \"journal\"; did you mean [journal]?"),
        ("[[log]]", "1:3: unknown section \"log\"; did you mean [log]?"),
        ("metrics = []", "1:1: unknown section \"metrics\"; did you mean [metrics]?"),
        ("[watch]\npath = '/a'", "1:2: unknown section \"watch\"; did you mean [[watch]]?"),
        ("watch = [{path = '/a'}, 1]", "1:25: unknown section \"watch\"; did you mean [[watch]]?"),
        ("[[defaults]]", "1:3: unknown section \"defaults\"; did you mean [defaults]?"),
        ("quarantine = true", "1:1: unknown section \"quarantine\"; did you mean [quarantine]?"),
        // Keys.
        ("[defaults]\ngrase = 1", "2:1: unknown key \"grase\" in [defaults]; did you mean \"grace\"?"),
        ("[defaults]\n'sole-copy' = 1", "2:1: unknown key \"sole-copy\" in [defaults]; did you mean \"sole_copy\"?"),
        ("[defaults]\n\"\\u001b[2J\" = 1", "2:1: unknown key \"\\u{1b}[2J\" in [defaults]; did you mean \"names\", \"writers\", \"exclude\", \"unless_open\", \"recursive\", \"grace\", \"fixed_name_grace\", \"closed\", \"open\", \"sole_copy\", \"action\", \"hot\", \"learn\", \"network\", \"broad\" or \"broad_names\"?"),
        ("defaults.é = 1", "1:10: invalid unquoted key, expected letters, numbers, `-`, `_`"),
        ("[[watch]]\npath = '/a'\nname = 1", "3:1: unknown key \"name\" in [[watch]]; did you mean \"names\"?"),
        ("[quarantine]\nkeeep = 1", "2:1: unknown key \"keeep\" in [quarantine]; did you mean \"keep\"?"),
        ("[quarantine]\nsize = 1", "2:1: unknown key \"size\" in [quarantine]; did you mean \"keep\", \"percent\" or \"min_free\"?"),
        ("[journal]\nmaxsize = 1", "2:1: unknown key \"maxsize\" in [journal]; did you mean \"max_size\"?"),
        ("[log]\nlevle = 1", "2:1: unknown key \"levle\" in [log]; did you mean \"level\"?"),
        ("[metrics]\nsocket = 1", "2:1: unknown key \"socket\" in [metrics]; did you mean \"textfile\" or \"every\"?"),
        ("[metrics]\nleaks = '1h'", "2:1: the key \"leaks\" is not valid here; did you mean to put it in [log]?"),
        ("[defaults]\nexcludes = []", "2:1: unknown key \"excludes\" in [defaults]; did you mean \"exclude\"?"),
        ("grace = '1s'", "1:1: the key \"grace\" is not valid here; did you mean to put it in [defaults]?"),
        ("path = '/a'", "1:1: the key \"path\" is not valid here; did you mean to put it in [[watch]]?"),
        ("[defaults]\npath = '/a'", "2:1: the key \"path\" is not valid here; did you mean to put it in [[watch]]?"),
        ("[defaults]\npercent = 1", "2:1: the key \"percent\" is not valid here; did you mean to put it in [quarantine]?"),
        // The first error in the file, not the first in the alphabet.
        ("[defaults]\nzzz = 1\naaa = 1\nopen = 1\n[quarantine]\nx = 1", "2:1: unknown key \"zzz\" in [defaults]; did you mean \"names\", \"writers\", \"exclude\", \"unless_open\", \"recursive\", \"grace\", \"fixed_name_grace\", \"closed\", \"open\", \"sole_copy\", \"action\", \"hot\", \"learn\", \"network\", \"broad\" or \"broad_names\"?"),
        ("[quarantine]\nkeep = 1\n[defaults]\nopen = 1", "2:8: 1 has no unit; did you mean \"1s\"?"),
        // Values.
        ("[defaults]\nrecursive = 'yes'", "2:13: recursive must be true or false, not a string"),
        ("[defaults]\nbroad_names = 1", "2:15: broad_names must be true or false, not an integer"),
        ("[defaults]\nbroad_name = true", "2:1: unknown key \"broad_name\" in [defaults]; did you mean \"broad_names\"?"),
        ("[defaults]\nbroad = 1", "2:9: broad must be true or false, not an integer"),
        ("[defaults]\ngrace = 30", "2:9: 30 has no unit; did you mean \"30s\"?"),
        ("[defaults]\ngrace = '30'", "2:9: \"30\" has no unit; did you mean \"30s\"?"),
        ("[defaults]\ngrace = '5 min'", "2:9: \" min\" is not a unit; use ms, s, m, h or d"),
        ("[defaults]\ngrace = 1.5", "2:9: grace must be a duration, like \"30s\", not a float"),
        ("[defaults]\ngrace = -3", "2:9: grace must be a duration, like \"30s\", not an integer"),
        ("[defaults.grace]\nx = 1", "1:1: grace must be a duration, like \"30s\", not a table"),
        ("[defaults]\ngrace = '99ms'", "2:9: a grace of 99ms is too short; the shortest is 100ms"),
        ("[defaults]\nfixed_name_grace = '0s'", "2:20: a grace of 0s is too short; the shortest is 100ms"),
        ("[defaults]\nclosed = 'setled'", "2:10: closed cannot be \"setled\"; did you mean \"settled\"?"),
        ("[defaults]\nopen = 'Reap'", "2:8: open cannot be \"Reap\"; did you mean \"reap\"?"),
        ("[defaults]\nsole_copy = ''", "2:13: sole_copy cannot be \"\"; use \"quarantine\", \"keep\" or \"reap\""),
        ("[defaults]\naction = false", "2:10: action cannot be a boolean; use \"delete\", \"quarantine\" or \"report\""),
        ("[defaults]\nnames = '*.part'", "2:9: names must be a list; did you mean [\"*.part\"]?"),
        ("[defaults]\nnames = 1", "2:9: names must be a list of strings, not an integer"),
        ("[defaults]\nnames = [\n  '*.é', 1,\n]", "3:10: names must be a list of strings, not an integer"),
        ("[defaults]\nnames = []", "2:9: names is empty; did you mean [\"*.tmp\"], which is the default without this line?"),
        ("[defaults]\nnames = ['a', '']", "2:15: a name pattern is empty and would match nothing; leave it out (the default is \"*.tmp\")"),
        ("[defaults]\nnames = ['a/*.part']", "2:10: the name pattern \"a/*.part\" contains a \"/\", but only the last part of a path is compared; write \"*.part\", and give the directory as DIR, or as path in the configuration file"),
        ("[defaults]\nnames = ['[a']", "2:10: invalid name pattern \"[a\": unclosed character class; missing ']'; to match a special character literally, put a backslash before it"),
        ("[[writer]]\nname = 'a'", "1:1: the writer \"a\" has no patterns; add patterns = [\"<t>.<uuid>.tmp\"]"),
        ("[[writer]]\npatterns = ['<t>.a']", "1:1: this writer has no name; add name = \"NAME\""),
        ("[[writer]]\nname = 'git'\npatterns = ['<t>.a']", "2:8: the writer \"git\" is in the catalog already; give yours another name. To show the catalog: orphand scan --writer list"),
        ("[[writer]]\nname = 'a'\npatterns = ['<t>.a']\n[[writer]]\nname = 'a'\npatterns = ['<t>.a']", "5:8: two writers have the name \"a\"; give one another name"),
        ("[[writer]]\nname = 'A b'\npatterns = ['<t>.a']", "2:8: the name \"A b\" may have only small letters, digits and \"-\""),
        ("[[writer]]\nname = 'list'\npatterns = ['<t>.a']", "2:8: the name \"list\" shows the writers on the command line; give the writer another name"),
        ("[[writer]]\nname = 'a'\npatterns = ['<t>.a', '<uuid>']", "3:22: the pattern \"<uuid>\" has no literal character, so it would match names of every kind"),
        ("[[writer]]\nname = 'a'\npatterns = ['<t>.<pdi>.a']", "3:13: the pattern \"<t>.<pdi>.a\" has the unknown part <pdi>; did you mean <pid>?"),
        ("[[writer]]\nname = 'a'\npatterns = ['<t>.a']\ncompanions = ['-wal']", "4:15: the companion \"-wal\" must begin with <temp>, the name of the temp; write \"<temp>-wal\""),
        ("[[writer]]\nname = 'a'\npatterns = ['<t>.a']\nuncommitted = 'discrad'", "4:15: uncommitted cannot be \"discrad\"; did you mean \"discard\"?"),
        ("[[writer]]\nname = 'a'\npatterns = ['<t>.a']\nunless_open = ''", "4:15: unless_open is \"\", which is not the path of a file"),
        ("[[writer]]\nname = 'a'\npatterns = ['<t>.a']\ntruncates_at = 0", "4:16: truncates_at must be a number of bytes from 1 to 255"),
        ("[[writer]]\nname = 'a'\npatterns = ['<t>.a']\ntruncates_at = 'x'", "4:16: truncates_at must be a number of bytes from 1 to 255, not a string"),
        ("[[writer]]\nname = 'a'\npatterns = ['<t>.a']\ndefault = true", "4:11: default = true is only for the catalog; name the writer in [defaults] instead: writers = [\"a\"]"),
        ("[[writer]]\nname = 'a'\npattern = ['<t>.a']", "3:1: unknown key \"pattern\" in [[writer]]; did you mean \"patterns\"?"),
        ("[[writer]]\nname = 'my-app'\npatterns = ['<t>.a']\n[defaults]\nwriters = ['my-ap']", "5:12: unknown writer \"my-ap\"; did you mean \"my-app\"? To list the writers: orphand scan --writer list"),
        ("[writer]\nname = 'a'", "1:2: unknown section \"writer\"; did you mean [[writer]]?"),
        ("[defaults]\nwriters = ['git', 'claude']", "2:19: unknown writer \"claude\"; did you mean \"claude-code\"? To list the writers: orphand scan --writer list"),
        ("[defaults]\nnetwork = [nfs]", "2:12: text must be in quotes; did you mean \"nfs\"?"),
        ("[defaults]\nunless_open = ''", "2:15: the path is empty; name a file, like \"LOCK\", or leave the key out"),
        ("[defaults]\nunless_open = 'run/'", "2:15: \"run/\" is a directory; name a file in it"),
        ("[defaults]\nunless_open = '..'", "2:15: \"..\" is a directory; name a file in it"),
        ("[defaults]\nunless_open = '/a/../LOCK'", "2:15: the path \"/a/../LOCK\" contains \"..\"; write the path without it"),
        ("[defaults]\nunless_open = '$HOME/LOCK'", "2:15: the path \"$HOME/LOCK\" must be absolute or begin with ~/; did you mean \"~/LOCK\"?"),
        ("[defaults]\nunless_open = \"a\\u0000\"", "2:15: the path \"a\\0\" contains a NUL character"),
        ("[[watch]]\npath = '/a'\nunless_open = true", "3:15: unless_open must be a string, not a boolean"),
        ("[defaults]\nexclude = 'cache'", "2:11: exclude must be a list; did you mean [\"cache\"]?"),
        ("[defaults]\nexclude = [1]", "2:12: exclude must be a list of strings, not an integer"),
        ("[defaults]\nexclude = ['a', '']", "2:17: a glob to exclude is empty and would match nothing; leave it out"),
        ("[[watch]]\npath = '/a'\nexclude = ['cache/']", "3:12: \"cache/\" would exclude nothing: write a path relative to the directory of the rule, like \"cache/*.tmp\", without a \"/\" at either end and without \".\", \"..\" or \"~\"; did you mean \"cache\"?"),
        ("[defaults]\nexclude = ['/a/b']", "2:12: \"/a/b\" would exclude nothing: write a path relative to the directory of the rule, like \"cache/*.tmp\", without a \"/\" at either end and without \".\", \"..\" or \"~\""),
        ("[defaults]\nexclude = ['[a']", "2:12: invalid glob \"[a\": unclosed character class; missing ']'; to match a special character literally, put a backslash before it"),
        ("[journal]\nmax_size = 16", "2:12: 16 has no unit; did you mean \"16MB\"?"),
        ("[journal]\nmax_size = '16'", "2:12: \"16\" has no unit; did you mean \"16MB\"?"),
        ("[journal]\nmax_size = '16MiB'", "2:12: \"MiB\" is not a unit; there are kB, MB and GB"),
        ("[journal]\nmax_size = 16MB", "2:12: text must be in quotes; did you mean \"16MB\"?"),
        ("[journal]\nmax_size = '0MB'", "2:12: max_size cannot be 0; the smallest is 1kB"),
        ("[log]\nmax_size = true", "2:12: max_size must be a size, like \"16MB\", not a boolean"),
        ("[log]\nmax_size = 'big'", "2:12: \"big\" is not a size; write a whole number and a unit, like 16MB (kB, MB or GB)"),
        ("[log]\nlevel = 'warning'", "2:9: level cannot be \"warning\"; use \"error\", \"warn\", \"info\" or \"debug\""),
        ("[log]\nlevel = 'inf'", "2:9: level cannot be \"inf\"; did you mean \"info\"?"),
        ("[log]\nlevel = 3", "2:9: level cannot be an integer; use \"error\", \"warn\", \"info\" or \"debug\""),
        ("[log]\nleaks = '999ms'", "2:9: an interval of 999ms is too short; the shortest is 1s"),
        ("[log]\nfile = false", "2:8: file must be a string, not a boolean"),
        ("[log]\nfile = 'off'", "2:8: file cannot be \"off\"; did you mean \"none\", or a path that begins with / or ~/?"),
        ("[log]\nfile = 'logs/x.log'", "2:8: the path \"logs/x.log\" must be absolute or begin with ~/; did you mean \"~/logs/x.log\"?"),
        ("[log]\nfile = '/var/log/'", "2:8: \"/var/log/\" is a directory; name a file in it"),
        ("[alert]\ncommand = 'x'", "2:11: command must be a list; did you mean [\"x\"]?"),
        ("[alert]\ncommand = []", "2:11: command needs a program and its arguments, like [\"notify-send\", \"orphand\"]"),
        ("[alert]\nbytes = 5", "2:9: 5 has no unit; did you mean \"5MB\"?"),
        ("[alert]\nevery = '0s'", "2:9: an interval of 0s is too short; the shortest is 1s"),
        ("[metrics]\nevery = '0s'", "2:9: an interval of 0s is too short; the shortest is 1s"),
        ("[metrics]\ntextfile = 'x.prom'", "2:12: the path \"x.prom\" must be absolute or begin with ~/; did you mean \"~/x.prom\"?"),
        ("[metrics]\ntextfile = '/m/orphand.txt'", "2:12: \"/m/orphand.txt\" does not end in .prom, so no collector would read it; did you mean \"/m/orphand.prom\"?"),
        ("[metrics]\ntextfile = '/m/.prom'", "2:12: \"/m/.prom\" does not end in .prom, so no collector would read it; did you mean \"/m/.prom.prom\"?"),
        ("[quarantine]\nkeep = '1w'", "2:8: \"w\" is not a unit; use ms, s, m, h or d"),
        ("[quarantine]\nkeep = 7", "2:8: 7 has no unit; did you mean \"7s\"?"),
        ("[quarantine]\npercent = 101", "2:11: percent must be a whole number from 1 to 100, or 0 for no limit"),
        ("[quarantine]\npercent = '10%'", "2:11: percent must be a whole number from 1 to 100, or 0 for no limit"),
        ("[quarantine]\nmin_free = 5", "2:12: min_free must be a percentage from \"1%\" to \"100%\", or \"0\" for no limit"),
        ("[quarantine]\nmin_free = '5'", "2:12: min_free must be a percentage from \"1%\" to \"100%\", or \"0\" for no limit"),
        ("[quarantine]\nmin_free = '101%'", "2:12: min_free must be a percentage from \"1%\" to \"100%\", or \"0\" for no limit"),
        ("[quarantine]\nmin_free = '+5%'", "2:12: min_free must be a percentage from \"1%\" to \"100%\", or \"0\" for no limit"),
        // Paths.
        ("[[watch]]\ngrace = '1s'\n", "1:1: this [[watch]] has no path; add path = \"DIR\""),
        ("[[watch]]\npath = 1", "2:8: path must be a string, not an integer"),
        ("[[watch]]\npath = 'app/x'", "2:8: the path \"app/x\" must be absolute or begin with ~/; did you mean \"~/app/x\"?"),
        ("[[watch]]\npath = './x'", "2:8: the path \"./x\" must be absolute or begin with ~/; did you mean \"~/x\"?"),
        ("[[watch]]\npath = '$HOME/x'", "2:8: the path \"$HOME/x\" must be absolute or begin with ~/; did you mean \"~/x\"?"),
        ("[[watch]]\npath = '~'", "2:8: the path \"~\" must be absolute or begin with ~/; did you mean \"~/DIR\"?"),
        ("[[watch]]\npath = '${HOME}/x'", "2:8: the path \"${HOME}/x\" must be absolute or begin with ~/; did you mean \"~/x\"?"),
        ("[[watch]]\npath = '~bob/x'", "2:8: \"~bob/x\" begins with another user's home directory, which only a shell expands; write the absolute path instead"),
        ("[[watch]]\npath = '~root'", "2:8: \"~root\" begins with another user's home directory, which only a shell expands; write the absolute path instead"),
        ("[[watch]]\npath = '$DATA/x'", "2:8: \"$DATA/x\" begins with a variable, which only a shell expands; write the absolute path instead"),
        ("[[watch]]\npath = 'a/~b/x'", "2:8: the path \"a/~b/x\" must be absolute or begin with ~/; did you mean \"~/a/~b/x\"?"),
        ("[[watch]]\npath = '.a/../b'", "2:8: the path \".a/../b\" must be absolute or begin with ~/; did you mean \"~/.a/b\"?"),
        ("[[watch]]\npath = '/a/b/../c'", "2:8: the path \"/a/b/../c\" contains \"..\"; write the path without it"),
        ("[[watch]]\npath = '~/..'", "2:8: the path \"~/..\" contains \"..\"; write the path without it"),
        ("[[watch]]\npath = ''", "2:8: the path \"\" must be absolute or begin with ~/; did you mean \"~/DIR\"?"),
        ("[[watch]]\npath = '/a/b'\n[[watch]]\nbroad = true\npath = '/a//b/'", "5:8: \"/a/b\" already has a rule in line 2; merge the two rules"),
        ("[[watch]]\npath = '~/x'\n[[watch]]\npath = '/home/ann/x'", "4:8: \"/home/ann/x\" already has a rule in line 2; merge the two rules"),
        // Two rules for one temp.
        ("[[watch]]\npath = '/a'\nrecursive = true\n[[watch]]\npath = '/a/b'", "5:8: \"/a/b\" is in \"/a\", whose rule in line 2 is recursive: a temp would have two rules; add exclude = [\"b/**\"] to that rule, or merge the two rules"),
        ("[[watch]]\npath = '/a/b/c[1]'\n[[watch]]\n  path = '/a'\nrecursive = true", "4:10: \"/a\" is recursive and contains \"/a/b/c[1]\", which has a rule in line 2: a temp would have two rules; add exclude = [\"b/c\\\\[1]\"] to this rule, or merge the two rules"),
        ("[defaults]\nrecursive = true\n[[watch]]\npath = '/x'\n[[watch]]\npath = '/a/b'\n[[watch]]\npath = '/a'", "8:8: \"/a\" is recursive and contains \"/a/b\", which has a rule in line 6: a temp would have two rules; add exclude = [\"b/**\"] to this rule, or merge the two rules"),
        ("[[watch]]\npath = '/a'\nrecursive = true\nexclude = ['*.x', 'c']\n[[watch]]\npath = '/a/b'", "6:8: \"/a/b\" is in \"/a\", whose rule in line 2 is recursive: a temp would have two rules; add exclude = [\"b/**\"] to that rule, or merge the two rules"),
        // Combinations.
        ("[defaults]\nopen = 'keep'\nclosed = 'settled'", "3:10: closed = \"settled\" with open = \"keep\" never removes anything: closed temps are ignored, and open ones are kept; did you mean open = \"reap\"?"),
        ("[[watch]]\npath = '/a'\nclosed = 'settled'\n[defaults]\ngrace = '1s'", "3:10: closed = \"settled\" with open = \"keep\" never removes anything: closed temps are ignored, and open ones are kept; did you mean open = \"reap\"?"),
    ];
    for (text, expected) in rows {
        let error = parse(text).expect_err(text).to_string();
        assert_eq!(error, format!("c.toml:{expected}"), "{text}");
    }
    // An editor does not show the byte order mark.
    assert_eq!(parse("\u{feff}x = 1").expect_err("x").position, Some((1, 1)));
}

/// The directories are nested, but no temp has two rules.
#[test]
fn nested_rules_that_do_not_overlap_are_valid() {
    let deep = "recursive = true\n";
    for (first, second) in [
        (("/a", ""), ("/a/b", deep)),
        (("/a", deep), ("/ab", deep)),
        (("/a", "recursive = true\nexclude = ['b/**']"), ("/a/b", "")),
        (("/a/b/c", ""), ("/a", "recursive = true\nexclude = ['b']")),
        (
            ("/a", "recursive = true\nexclude = ['b/c']"),
            ("/a/b/c/d", deep),
        ),
    ] {
        let rule = |(path, rest): (&str, &str)| format!("[[watch]]\npath = '{path}'\n{rest}\n");
        for text in [rule(first) + &rule(second), rule(second) + &rule(first)] {
            let config = parse(&text).map_err(|error| error.to_string());
            assert_eq!(config.map(|config| config.watch.len()), Ok(2), "{text}");
        }
    }
}

/// Following the advice in the message makes the file valid.
#[test]
fn the_proposed_glob_excludes_exactly_the_inner_folder() {
    let rule = |path: &str| format!("[[watch]]\npath = '{path}'\n");
    for below in [
        "b",
        "b/c",
        "*",
        "b[1]/{c}",
        "!x",
        "é",
        r"b\c",
        r"b\\*/\n",
        "b\u{301}",
        "a\u{202e}b",
        "tab\tbed",
        "\"b\"",
    ] {
        let outer = rule("/a") + "recursive = true\n";
        let inner = rule(&format!("/a/{below}"));
        let error = parse(&(inner.clone() + &outer))
            .expect_err(below)
            .to_string();
        let (_, rest) = error.split_once("add ").expect("an advice");
        let (exclude, _) = rest.split_once(" to this rule").expect("an advice");
        let fixed = format!("{inner}{outer}{exclude}");
        assert!(parse(&fixed).is_ok(), "{fixed}");
        assert!(
            parse(&format!("{fixed}\n{}", rule("/a/x/b"))).is_err(),
            "only this folder is excluded"
        );
    }
}

#[test]
fn closed_and_open_are_checked_with_the_defaults() {
    let both =
        "[[watch]]\npath = '/a'\nopen = 'keep'\n[defaults]\nclosed = 'settled'\nopen = 'reap'";
    let position = if CLOSE_EVENTS { (3, 8) } else { (5, 10) };
    assert_eq!(parse(both).expect_err("an error").position, Some(position));
    let settled = parse("[defaults]\nopen = 'reap'\n[[watch]]\npath = '/a'\nclosed = 'settled'");
    match settled {
        Ok(config) => assert_eq!(config.watch[0].settings.closed, Some(ClosedArg::Settled)),
        Err(error) => assert_eq!((CLOSE_EVENTS, error.position), (false, Some((5, 10)))),
    }
}

#[test]
fn valid_files_are_read() {
    let second = Duration::from_secs;
    let strings = |strings: &[&str]| Some(strings.iter().map(|s| s.to_string()).collect());
    let config = |defaults, watch, quarantine| Config {
        defaults,
        watch,
        quarantine,
        path: Some("c.toml".into()),
        ..Config::default()
    };
    let rule = |path: &str, settings| WatchRule {
        path: path.into(),
        settings,
        position: (0, 0),
        lines: Lines::default(),
    };
    let none = RuleSettings::default;
    let full = RuleSettings {
        names: strings(&["*.tmp", "*.part"]),
        writers: strings(&["git"]),
        no_default_writers: false,
        own_writers: OwnWriters::default(),
        exclude: strings(&["cache", "a/*.tmp"]),
        unless_open: Some("/home/ann/.app/lock".into()),
        own_exclude: Vec::new(),
        max_depth: None,
        recursive: Some(true),
        grace: Some(second(30)),
        fixed_name_grace: Some(second(7200)),
        closed: Some(ClosedArg::Orphan),
        open: Some(OpenArg::Quarantine),
        sole_copy: Some(SoleCopyArg::Keep),
        action: Some(ActionArg::Report),
        dry_run: false,
        hot: Some(HotArg::Watch),
        learn: Some(LearnArg::Take),
        network: strings(&["nfs4"]),
        broad: Some(false),
        broad_names: Some(true),
    };
    let hasty = RuleSettings {
        writers: strings(&[]),
        grace: Some(Duration::from_millis(100)),
        ..none()
    };
    let delete = RuleSettings {
        action: Some(ActionArg::Delete),
        unless_open: Some("./../LOCK".into()),
        ..none()
    };
    let rules = vec![
        rule("/home/ann/.app/sessions", hasty),
        rule("/srv/app/x", delete),
    ];
    let limits = |seconds, percent| Limits {
        age: second(seconds),
        percent,
        ..Limits::default()
    };
    for (text, expected) in [
        ("", config(none(), vec![], Limits::default())),
        ("\u{feff}# é\r\n", config(none(), vec![], Limits::default())),
        (
            "watch = []\n[defaults]",
            config(none(), vec![], Limits::default()),
        ),
        (
            FULL,
            Config {
                journal: JournalSettings { max_size: 500_000 },
                log: LogSettings {
                    file: LogFile::At("/home/ann/logs/orphand.log".into()),
                    max_size: 2_000_000,
                    level: LogLevel::Debug,
                    leaks: second(1),
                },
                metrics: MetricsSettings {
                    textfile: Some("/srv/metrics/orphand.prom".into()),
                    every: second(60),
                },
                alert: AlertSettings {
                    command: Some(vec!["notify-send".into(), "orphand".into()]),
                    every: second(2 * 60 * 60),
                    leaks: 100,
                    bytes: 1_000_000_000,
                    min_free: 7,
                },
                ..config(
                    full,
                    rules,
                    Limits {
                        min_free: 12,
                        ..limits(3 * 24 * 60 * 60, 5)
                    },
                )
            },
        ),
        (
            "log.file = 'none'",
            Config {
                log: LogSettings {
                    file: LogFile::Off,
                    ..LogSettings::default()
                },
                ..config(none(), vec![], Limits::default())
            },
        ),
        (
            "quarantine = { keep = 0, percent = 0 }",
            config(none(), vec![], limits(0, 0)),
        ),
        (
            "quarantine.min_free = '0'",
            config(
                none(),
                vec![],
                Limits {
                    min_free: 0,
                    ..Limits::default()
                },
            ),
        ),
        (
            "quarantine.keep = '0s'",
            config(none(), vec![], limits(0, 10)),
        ),
        // A second slash does not drop the home directory.
        (
            "watch = [{ path = '~//x' }, { path = '~/' }]",
            config(
                none(),
                vec![rule("/home/ann/x", none()), rule(HOME, none())],
                Limits::default(),
            ),
        ),
    ] {
        let mut config = parse(text).map_err(|error| error.to_string());
        if let Ok(config) = &mut config {
            clear_positions(config);
        }
        assert_eq!(config, Ok(expected), "{text}");
    }
}

/// Clears the positions, which have a test of their own.
fn clear_positions(config: &mut Config) {
    config.lines.clear();
    for rule in &mut config.watch {
        (rule.position, rule.lines) = ((0, 0), Lines::default());
    }
}

#[test]
fn the_position_of_each_key_is_recorded() {
    let text = "\u{feff}[[watch]]\n  grace = '1s'\n  path = '/a'\n[log]\n\n level = 'info'\n\
                [defaults]\nnames = [\n'x',\n]\nopen = 'reap'";
    let config = parse(text).expect("a valid file");
    assert_eq!(config.watch[0].position, (3, 10));
    let rule = [("grace", 2), ("path", 3)];
    assert_eq!(config.watch[0].lines, Lines::from(rule));
    let sections = [
        ("[defaults]", Lines::from([("names", 8), ("open", 11)])),
        ("[log]", Lines::from([("level", 6)])),
    ];
    assert_eq!(config.lines, BTreeMap::from(sections));
}

#[test]
fn roots_are_checked_on_the_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let base = dir.path().canonicalize().expect("a path");
    fs::create_dir_all(base.join("a/b")).expect("directories");
    fs::write(base.join("file"), "").expect("written");
    std::os::unix::fs::symlink("a", base.join("link")).expect("a link");
    let base = base.to_str().expect("UTF-8");
    let result = |text: &str, typed: &RuleSettings| {
        let config = parse(&text.replace("{}", base)).expect(text);
        match config.roots(typed) {
            Ok(roots) => roots.len().to_string(),
            Err(error) => error.to_string().replace(base, "{}"),
        }
    };
    let none = RuleSettings::default();
    let two = "[[watch]]\npath = '{}/a'\n[[watch]]\npath = ";
    for (text, expected) in [
        ("", "0"),
        ("[[watch]]\npath = '{}/later/deep'", "1"),
        (
            "[[watch]]\npath = '{}/link'",
            "c.toml:2:8: \"{}/link\" is a symlink, and its target may change; give \"{}/a\" instead",
        ),
        (
            "[[watch]]\npath = '{}/file'",
            "c.toml:2:8: \"{}/file\" is not a directory; to see the verdict for a file: orphand explain {}/file",
        ),
        (
            "\n[[watch]]\n  path = '/usr'",
            "c.toml:3:10: \"/usr\" is one of the system's own top folders: too broad for a tool that deletes files; give the directory in which the program leaves its temps, or set broad = true",
        ),
        ("[[watch]]\npath = '/usr'\nbroad = true", "1"),
        ("defaults.broad = true\n[[watch]]\npath = '/usr'", "1"),
        (&format!("{two}'{{}}/link/b'"), "2"),
        (
            &format!("{two}'{{}}/link/b'\n[defaults]\nrecursive = true"),
            "c.toml:4:8: \"{}/link/b\" is in \"{}/a\", whose rule in line 2 is recursive: a temp would have two rules; add exclude = [\"b/**\"] to that rule, or merge the two rules",
        ),
        (
            &format!(
                "{two}'{{}}/link/later'\n[defaults]\nrecursive = true\nexclude = ['later/**']"
            ),
            "2",
        ),
        (
            "[[watch]]\npath = '{}/a/b'\n[[watch]]\npath = '{}/link/b'",
            "c.toml:4:8: \"{}/link/b\" leads to the same directory as \"{}/a/b\", which already has a rule in line 2; merge the two rules",
        ),
    ] {
        assert_eq!(result(text, &none), expected, "{text}");
    }
    let deep = RuleSettings {
        recursive: Some(true),
        ..none.clone()
    };
    let nested = format!("{two}'{{}}/a/b'");
    assert_eq!(result(&nested, &none), "2");
    assert!(result(&nested, &deep).starts_with("c.toml:4:8: \"{}/a/b\" is in \"{}/a\""));
    let settled = RuleSettings {
        closed: Some(ClosedArg::Settled),
        ..none
    };
    let typed = result(&nested, &settled);
    assert!(
        typed.starts_with("closed = ") && typed.contains("--open reap"),
        "{typed}"
    );
}

#[test]
fn a_broad_name_is_refused_at_its_position() {
    for (text, position) in [
        ("[defaults]\nnames = ['*.part', '*']", Some("2:20")),
        (
            "[defaults]\nnames = ['*']\nbroad_names = false",
            Some("2:10"),
        ),
        ("[defaults]\nnames = ['*']\nbroad_names = true", None),
        ("[[watch]]\npath = '/a'\nnames = ['*.*']", Some("3:10")),
        (
            "[[watch]]\npath = '/a'\nnames = ['*.*']\n[defaults]\nbroad_names = true",
            None,
        ),
        (
            "[[watch]]\npath = '/a'\nbroad_names = false\n[defaults]\nnames = ['*']\nbroad_names = true",
            Some("3:1"),
        ),
    ] {
        match (parse(text), position) {
            (Ok(_), None) => {}
            (Err(error), Some(position)) => {
                let error = error.to_string();
                let start = format!("c.toml:{position}: the name pattern \"*");
                assert!(error.starts_with(&start), "{text}: {error}");
                assert!(error.contains("broad_names = true"), "{error}");
            }
            (parsed, _) => panic!("{text}: {parsed:?}"),
        }
    }
}

#[test]
fn every_proposed_key_is_valid() {
    for section in sections() {
        for key in &section.keys {
            let text = format!("{}\n{key} = nan", section.title);
            let error = parse(&text).expect_err(key).to_string();
            assert!(
                error.contains(&format!(":2:{}: {key} ", key.len() + 4)),
                "{error}"
            );
        }
    }
}

#[test]
fn a_tilde_needs_a_home() {
    let error = Config::parse("[[watch]]\npath = '~/x'", Path::new("a b.toml"), None);
    let expected = "a b.toml:2:8: \"~/x\" needs the variable HOME, which is not set";
    assert_eq!(error.expect_err("no home").to_string(), expected);
}

#[test]
fn a_named_file_must_exist_and_be_utf8() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("x.toml");
    let error = |file: &Path| Config::load(Some(file)).expect_err("an error").to_string();
    let shown = file.display();
    let missing = format!(
        "{shown}: the file does not exist; check the name, or create it: orphand config init --config FILE"
    );
    assert_eq!(error(&file), missing);
    fs::write(&file, b"# \xc3\xa9\n# \xc3\xa9\xff").expect("written");
    assert_eq!(
        error(&file),
        format!("{shown}:2:4: this is not UTF-8; save the file as UTF-8")
    );
    fs::write(&file, FULL).expect("written");
    assert_eq!(
        Config::load(Some(&file)).expect("a valid file").path,
        Some(file)
    );
}

#[test]
fn a_grace_applies_to_all_names_unless_the_same_source_sets_both() {
    let graces = |layers: &[(Option<u64>, Option<u64>)]| {
        let settings = layers
            .iter()
            .fold(RuleSettings::default(), |upper, (both, fixed)| {
                upper.over(&RuleSettings {
                    grace: both.map(Duration::from_secs),
                    fixed_name_grace: fixed.map(Duration::from_secs),
                    ..RuleSettings::default()
                })
            });
        let grace = settings.policy().expect("a rule").grace;
        (grace.random.as_secs(), grace.fixed.as_secs())
    };
    assert_eq!(graces(&[]), (300, 3600));
    assert_eq!(graces(&[(Some(10), None)]), (10, 10));
    assert_eq!(graces(&[(None, Some(20))]), (300, 20));
    assert_eq!(graces(&[(Some(10), Some(20))]), (10, 20));
    // The source that overrides the other one is first.
    assert_eq!(graces(&[(Some(10), None), (None, Some(20))]), (10, 10));
    assert_eq!(graces(&[(None, Some(20)), (Some(10), None)]), (10, 20));
    assert_eq!(graces(&[(None, None), (Some(10), Some(20))]), (10, 20));
    assert_eq!(
        graces(&[(Some(5), None), (None, None), (Some(10), Some(20))]),
        (5, 5)
    );
}

#[test]
fn a_rule_overrides_the_defaults_that_it_sets() {
    let config = parse(FULL).expect("a valid file");
    let settings = config.watch[0].settings.clone().over(&config.defaults);
    let policy = settings.policy().expect("a rule");
    assert_eq!(policy.grace, Graces::both(Duration::from_millis(100)));
    assert!(policy.recursive && policy.names.matches(b"a.part"));
    assert!(
        !policy.names.matches(b"tmp_obj_Ab3dE6"),
        "the empty list of the rule overrides the defaults"
    );
    assert!(policy.exclude.excludes(Path::new("x/cache")));
    assert_eq!(policy.trusted_file_systems, ["nfs4"]);
    let expected = (Open::Quarantine, SoleCopy::Keep, Action::Report);
    assert_eq!((policy.open, policy.sole_copy, policy.action), expected);
    let wrong = RuleSettings {
        writers: Some(vec!["gti".to_owned()]),
        ..settings
    };
    assert!(matches!(wrong.policy(), Err(SettingsError::Names(_))));
}

#[test]
fn truncated_and_deeply_nested_files_do_not_panic() {
    for end in (0..FULL.len()).filter(|end| FULL.is_char_boundary(*end)) {
        parse(&FULL[..end]).map_err(|error| error.to_string()).ok();
    }
    let deep = 100_000;
    for text in [
        format!("a={}", "[".repeat(deep)),
        format!("a={}", "{a=".repeat(deep)),
        format!("[{}a]", "a.".repeat(deep)),
        format!("{}a=1", "a.".repeat(deep)),
    ] {
        parse(&text).expect_err("too deep");
    }
}

fn all_keys() -> Vec<&'static str> {
    let keys = sections().iter().flat_map(|section| &section.keys);
    keys.copied().collect()
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text in "\\PC*|(?s:.*)") {
        parse(&text).map_err(|error| error.to_string()).ok();
    }

    /// The text is similar enough to a valid file to pass the parser.
    #[test]
    fn any_lines_are_read_without_a_panic(
        lines in prop::collection::vec((
            prop::sample::select(&["[defaults]", "[[watch]]", "[quarantine]", "[journal]", "[log]", "[metrics]", "[watch]", "[defaults.names]", ""][..]),
            prop::sample::select(all_keys()),
            "'[~/a-zé0-9*\\[{]*'|-?[0-9]{1,30}|0x[0-9a-f]{1,20}|\\[('[a-z*\\[{]*',? ?){0,3}\\]|[a-z0-9:.-]*|\\PC*",
        ), 0..8),
    ) {
        let text = lines.iter().map(|(header, key, value)| format!("{header}\n{key} = {value}\n"));
        let text = text.collect::<String>();
        if let Err(error) = parse(&text) {
            let (line, column) = error.position.expect("a position");
            prop_assert!(line <= text.split('\n').count() && column <= text.chars().count() + 1);
        }
    }
}

/// The checks are those of the fuzz target, which contain assertions.
#[test]
fn the_seeds_of_the_fuzzer_pass_its_checks() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzzed/seeds/config");
    let mut some = false;
    for seed in std::fs::read_dir(seeds).expect("seeds") {
        let seed = seed.expect("a seed").path();
        println!("{}", seed.display());
        fuzzed::check(&std::fs::read(&seed).expect("a seed"));
        some = true;
    }
    assert!(some, "no seed");
}

#[test]
fn the_template_changes_no_setting() {
    let path = Some("c.toml".into());
    let lines = [
        "[defaults]",
        "[quarantine]",
        "[journal]",
        "[log]",
        "[metrics]",
        "[alert]",
    ];
    let lines = lines.map(|title| (title, Lines::new()));
    let default = Config {
        path,
        lines: BTreeMap::from(lines),
        ..Config::default()
    };
    let config = parse(TEMPLATE).map_err(|error| error.to_string());
    assert_eq!(config, Ok(default));
}

/// With each setting turned on, the template has every key of the types and no other, each with its default.
#[test]
fn the_template_has_every_setting_with_its_default() {
    let text = template_lines().collect::<Vec<_>>().join("\n");
    let config = parse(&text).map_err(|error| error.to_string());
    let mut config = config.expect("a valid file");
    assert_eq!(config.watch.len(), 1);
    let keys = |value: &serde_json::Value| {
        let keys = value.as_object().expect("a table").keys();
        keys.cloned().collect::<std::collections::BTreeSet<_>>()
    };
    let types = serde_json::to_value(Config::default()).expect("a value");
    for section in sections()
        .iter()
        .filter(|section| !section.title.starts_with("[["))
    {
        let listed = section.keys.iter().map(|key| key.to_string()).collect();
        assert_eq!(keys(&types[section.name()]), listed, "{}", section.title);
    }
    let [defaults, watch, ..] = sections() else {
        panic!("no sections");
    };
    assert_eq!(watch.keys, [&["path"], &defaults.keys[..]].concat());
    let row = serde_json::to_value(WriterGrammar::default()).expect("a value");
    let writer = sections().iter().find(|section| section.name() == "writer");
    let listed = writer
        .expect("a section")
        .keys
        .iter()
        .map(|key| key.to_string());
    assert_eq!(keys(&row), listed.collect());
    let on: Vec<String> = Names::default()
        .default_writers()
        .map(str::to_owned)
        .collect();
    assert_eq!(config.defaults.writers, Some(on));
    let own: Vec<&str> = config
        .defaults
        .own_writers
        .iter()
        .map(|one| one.row().name.as_str())
        .collect();
    assert_eq!(own, ["my-app"]);
    config.defaults.own_writers = OwnWriters::default();

    let values = serde_json::to_value(&config.defaults).expect("a value");
    let unset = |(_, value): &(_, &serde_json::Value)| value.is_null();
    assert_eq!(
        values.as_object().expect("a table").iter().find(unset),
        None
    );
    // It has no default, so the template has an example.
    assert!(config.defaults.unless_open.take().is_some());
    assert_eq!(config.defaults, built_in());
    let policy = |settings: &RuleSettings| format!("{:?}", settings.policy().expect("a rule"));
    assert_eq!(policy(&built_in()), policy(&RuleSettings::default()));
    assert_eq!(policy(&built_in()), format!("{:?}", Policy::default()));

    // These have no default, so the template has examples.
    assert_eq!(std::mem::take(&mut config.log.file), LogFile::Off);
    assert!(config.metrics.textfile.take().is_some());
    assert!(config.alert.command.take().is_some());
    config.defaults = RuleSettings::default();
    let values = serde_json::to_value(&config).expect("a value");
    assert_eq!(values, types);
}

/// A file that a crash cut off does not enable anything.
#[test]
fn a_truncated_template_lists_no_directory() {
    for end in (0..TEMPLATE.len()).filter(|end| TEMPLATE.is_char_boundary(*end)) {
        let config = Config::parse(&TEMPLATE[..end], Path::new("c.toml"), None);
        assert!(config.is_err() || config.is_ok_and(|config| config.watch.is_empty()));
    }
}

/// Every value is written as the file has it, so that it can be read again.
#[test]
fn written_values_are_read_as_the_same() {
    let config = parse(FULL).expect("a valid file");
    let values = serde_json::to_value(&config).expect("a value");
    let text = toml::to_string(&values).expect("a file");
    let mut again = parse(&text).expect(&text);
    assert_eq!(serde_json::to_value(&again).expect("a value"), values);
    again.watch.clone_from(&config.watch);
    again.lines.clone_from(&config.lines);
    assert_eq!(again, config);
}

/// `writers = []` and other names turn the default writers off for the higher sources too, which only add writers.
#[test]
fn a_higher_source_turns_no_default_writers_on() {
    let settings = |names: Option<&str>, writers: Option<&[&str]>| RuleSettings {
        names: names.map(|name| vec![name.to_owned()]),
        writers: writers.map(|writers| writers.iter().map(|&writer| writer.to_owned()).collect()),
        ..RuleSettings::default()
    };
    let git: Option<&[&str]> = Some(&["git"]);
    for (lower, higher, want) in [
        (settings(None, None), settings(None, git), true),
        (settings(Some("*.tmp"), None), settings(None, None), true),
        (settings(None, git), settings(Some("*.tmp"), None), true),
        (settings(None, Some(&[])), settings(None, None), false),
        (settings(None, Some(&[])), settings(None, git), false),
        (settings(None, None), settings(None, Some(&[])), false),
        (
            settings(Some("*.part"), None),
            settings(Some("*.tmp"), None),
            false,
        ),
        (settings(None, None), settings(Some("*.part"), None), false),
    ] {
        let what = format!("{lower:?} {higher:?}");
        let merged = higher.over(&lower).over(&RuleSettings::default());
        let policy = merged.policy().expect("a rule");
        assert_eq!(
            policy.names.default_writers().next().is_some(),
            want,
            "{what}"
        );
    }
}
