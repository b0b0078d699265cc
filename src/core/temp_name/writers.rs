//! The writers whose names a rule can turn on. To add one, see CONTRIBUTING.md, *Add a writer*.

/// A program with known names of temps, which a rule can turn on by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterGrammar {
    /// The name by which a rule turns it on.
    pub name: &'static str,
    /// The names of its temps, as patterns: `<t>` is the name of the target, `<pid>` a process id, and `<hex:12>` a
    /// part of 12 hex digits.
    pub patterns: &'static [&'static str],
    /// The program that creates such names, and the source of this information: project, file or issue, URL.
    pub producer: &'static str,
    /// The only names of its targets. Empty if it writes files of any name.
    pub targets: &'static [&'static str],
    /// A rule has it on unless the rule sets other names than `*.tmp`, or an empty list of writers.
    pub default: bool,
    /// The length in bytes from which the writer may truncate the target in the name of a temp. No target is read from
    /// such a long name.
    pub truncates_at: Option<usize>,
}

pub(super) const WRITERS: &[WriterGrammar] = &[
    WriterGrammar {
        name: "openclaw",
        patterns: &["<t>.<pid>.<uuid>.tmp", "<t>.<uuid>.tmp"],
        producer: "openclaw, for its session store and its configuration: src/config/sessions/store.ts and \
                   src/config/io.ts in https://github.com/openclaw/openclaw",
        targets: &["sessions.json", "openclaw.json"],
        default: true,
        truncates_at: None,
    },
    WriterGrammar {
        name: "claude-code",
        patterns: &["<t>.tmp.<pid>.<hex:12>"],
        producer: "Claude Code, beside ~/.claude.json; as reported in \
                   https://github.com/anthropics/claude-code/issues/87677 and 89565",
        targets: &[],
        default: false,
        truncates_at: None,
    },
    WriterGrammar {
        name: "atomically",
        // The last digits of the time in milliseconds, then a random number.
        patterns: &["<t>.tmp-<digits:10><hex:6>"],
        producer: "the npm package atomically, and conf, which uses it: src/utils/temp.ts in \
                   https://github.com/fabiospampinato/atomically, source/index.ts in \
                   https://github.com/sindresorhus/conf",
        targets: &[],
        default: false,
        // LIMIT_BASENAME_LENGTH, in UTF-16 code units. A name never has fewer bytes than code units.
        truncates_at: Some(128),
    },
    WriterGrammar {
        name: "git",
        // The final name is a hash of the data that is being written, and the name of the temp does not contain it.
        patterns: &["tmp_obj_<alnum:6>", "tmp_pack_<alnum:6>"],
        producer: "git: create_tmpfile in object-file.c, create_tmp_packfile in pack-write.c, \
                   builtin/index-pack.c; the random letters in wrapper.c; https://github.com/git/git",
        targets: &[],
        default: false,
        truncates_at: None,
    },
];

/// Returns every writer that a rule can turn on.
pub fn writers() -> impl Iterator<Item = &'static WriterGrammar> {
    WRITERS.iter()
}
