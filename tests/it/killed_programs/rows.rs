//! The writers: how each one is run, where it is killed, what it leaves, and what orphand does with that.

use std::path::PathBuf;

/// What orphand does with a file that a killed writer left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Removed,
    /// Moved to the quarantine, from which `restore` brings the same bytes back.
    Moved,
    /// Kept for this reason.
    Kept(&'static str),
    /// Its name is not one that the rule takes.
    Untouched,
}

use Outcome::{Kept, Moved, Removed, Untouched};

/// The outcomes with the default names, and with the rows of the writer turned on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcomes {
    pub(super) default: Outcome,
    pub(super) named: Outcome,
}

/// Files that the killed writer leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leftover {
    /// The name, as the documentation shows it.
    pub(super) shown: &'static str,
    /// A regular expression for the whole path below the root. Its group is the part of the name that must be
    /// [clearly random](is_clearly_random): the writer is killed again until it is.
    pub(super) path: &'static str,
    /// With a whole target. `None` if the writer has no target, or removes it before the rename.
    pub(super) whole: Option<Outcomes>,
    /// Without a target. `None` if it is not checked.
    pub(super) missing: Option<Outcomes>,
}

/// The system call at which strace kills the writer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kill {
    /// From the n-th rename on.
    Rename(u32),
    /// From the n-th rename or link on.
    Link(u32),
    /// From the n-th removal of a name on.
    Unlink(u32),
    /// From the n-th fdatasync(2) on.
    Sync(u32),
    /// Renames fail with EPERM, and the writer ends itself by SIGKILL.
    AfterFailedRename,
}

impl Kill {
    /// Returns the arguments for strace.
    pub(super) fn strace(self) -> Vec<String> {
        const RENAMES: &str = "rename,renameat,renameat2";
        let (calls, fault) = match self {
            Kill::Rename(n) => (RENAMES.to_owned(), kill_from(n)),
            Kill::Link(n) => (format!("{RENAMES},link,linkat"), kill_from(n)),
            Kill::Unlink(n) => ("unlink,unlinkat".to_owned(), kill_from(n)),
            Kill::Sync(n) => ("fdatasync".to_owned(), kill_from(n)),
            Kill::AfterFailedRename => (RENAMES.to_owned(), "error=EPERM".to_owned()),
        };
        let trace = format!("trace={calls}");
        let inject = format!("inject={calls}:{fault}");
        ["-e", &trace, "-e", &inject].map(str::to_owned).to_vec()
    }
}

fn kill_from(n: u32) -> String {
    format!("signal=KILL:error=EIO:when={n}+")
}

/// A program that replaces files.
///
/// Its scripts are run by `sh -eu` in the base directory of a sandbox, where `root` is the directory that is swept.
/// `$text` is the text to write and `$n` the number of the write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer {
    pub(super) name: &'static str,
    /// The version with which the leftovers were seen.
    pub(super) version: &'static str,
    /// The programs that it needs, and the packages in [`packages`].
    pub(super) tools: &'static [&'static str],
    /// The rows of the catalog for its names. Without one, every row is turned on instead.
    pub(super) rows: &'static [&'static str],
    /// Prepares the root.
    pub(super) prepare: &'static str,
    /// Writes once. `run` before a command runs it, and kills it in the runs that are to leave a temp.
    pub(super) write: &'static str,
    /// Fails unless the writer's data is sound. It runs after a sweep, and may write first.
    pub(super) check: &'static str,
    /// The path of the target below the root, if the writer replaces one file and does not remove it first.
    pub(super) target: Option<&'static str>,
    pub(super) kill: Kill,
    pub(super) leaves: &'static [Leftover],
    /// A regular expression for other files that it has created by then. Nothing happens to them.
    pub(super) finished: &'static str,
    /// Each killed run leaves a temp of another name, so there can be several of one target.
    pub(super) leaves_several: bool,
}

impl Writer {
    /// Returns a needed program or package that is missing.
    pub(super) fn missing_tool(&self) -> Option<&'static str> {
        let all = ["strace", "sh"].iter().chain(self.tools);
        all.copied().find(|tool| !is_installed(tool))
    }
}

/// Reports whether a random part cannot be a word, a number or a time. Other names are moved or not taken at all:
/// docs/writers.md says so.
pub(crate) fn is_clearly_random(part: &str) -> bool {
    if let Ok(number) = part.parse::<u64>() {
        // The first and the last second that is taken for a time. Eight digits can be a date.
        return part.len() > 8 && !(978_307_200..4_133_980_800).contains(&number);
    }
    let letters = part.trim_matches(|c: char| !c.is_ascii_alphabetic());
    let count = |is: fn(&u8) -> bool| letters.bytes().filter(is).count();
    let mixes_cases = count(u8::is_ascii_lowercase) >= 2 && count(u8::is_ascii_uppercase) >= 2;
    mixes_cases || count(u8::is_ascii_digit) > 0
}

/// Returns all writers.
pub(super) fn all() -> impl Iterator<Item = &'static Writer> {
    let groups = [NPM, PYTHON, GIT, TOOLS, DATABASES, PACKAGES];
    groups.into_iter().flatten()
}

/// Returns the directory into which `.ci/run tools` installs packages of npm and Python.
pub(super) fn packages() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/writers")
}

/// Returns the directories of programs. Those of the system come first, because wrappers in others start slowly.
pub(super) fn path_variable() -> String {
    let rest = std::env::var("PATH").unwrap_or_default();
    format!("/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:{rest}")
}

/// No process has the pid 9. Borg's ninth transaction has temps such as `hints.9.tmp`, which a live process keeps.
const FREE_PID: &str = "a free pid 9";

/// Reports whether a program, a package (`node_modules/…`, `python/…`) or a privilege (`root`) is there.
fn is_installed(tool: &str) -> bool {
    match tool {
        "root" => crate::sandbox::is_root(),
        FREE_PID => !PathBuf::from("/proc/9").exists(),
        package if package.contains('/') => packages().join(package).exists(),
        program => {
            let path = path_variable();
            let mut dirs = path.split(':').filter(|dir| !dir.is_empty());
            dirs.any(|dir| PathBuf::from(dir).join(program).is_file())
        }
    }
}

const fn outcomes(default: Outcome, named: Outcome) -> Option<Outcomes> {
    Some(Outcomes { default, named })
}

/// A leftover beside a target: with the default names, and with the rows on.
const fn beside(
    shown: &'static str,
    path: &'static str,
    whole: Option<Outcomes>,
    missing: Option<Outcomes>,
) -> Leftover {
    Leftover {
        shown,
        path,
        whole,
        missing,
    }
}

/// A leftover without a target in its name, or whose target the writer has removed.
const fn alone(
    shown: &'static str,
    path: &'static str,
    default: Outcome,
    named: Outcome,
) -> Leftover {
    beside(shown, path, None, outcomes(default, named))
}

/// A leftover that is never touched.
const fn untouched(shown: &'static str, path: &'static str) -> Leftover {
    alone(shown, path, Untouched, Untouched)
}

const WRITER: Writer = Writer {
    name: "",
    version: "",
    tools: &[],
    rows: &[],
    prepare: "",
    write: "",
    check: "",
    target: None,
    kill: Kill::Rename(1),
    leaves: &[],
    finished: "$^",
    leaves_several: true,
};

/// A package of npm that writes `data.json`.
const fn npm(
    name: &'static str,
    version: &'static str,
    tools: &'static [&'static str],
    write: &'static str,
) -> Writer {
    Writer {
        name,
        version,
        tools,
        write,
        check: r#"write; node -p 'JSON.parse(fs.readFileSync("root/data.json")).text' | grep -qx "$text""#,
        target: Some("data.json"),
        ..WRITER
    }
}

pub(super) const NPM: &[Writer] = &[
    Writer {
        rows: &["write-file-atomic"],
        leaves: &[beside(
            "data.json.741603160",
            r"data\.json\.(\d{7,10})",
            outcomes(Untouched, Moved),
            outcomes(Untouched, Moved),
        )],
        ..npm(
            "write-file-atomic",
            "7.0.1",
            &["node", "node_modules/write-file-atomic"],
            r#"run node write.mjs write-file-atomic root "$text""#,
        )
    },
    Writer {
        leaves_several: false,
        rows: &["write-file-atomic"],
        leaves: &[beside(
            "data.json.1550761525",
            r"data\.json\.(\d{7,10})",
            outcomes(Untouched, Moved),
            outcomes(Untouched, Moved),
        )],
        ..npm(
            "write-json-file",
            "7.0.0",
            &["node", "node_modules/write-json-file"],
            r#"run node write.mjs write-json-file root "$text""#,
        )
    },
    Writer {
        rows: &["atomically"],
        leaves: &[beside(
            "data.json.tmp-59174957739fc9ae",
            r"data\.json\.tmp-\d{10}[0-9a-f]{6}",
            outcomes(Removed, Removed),
            outcomes(Moved, Moved),
        )],
        ..npm(
            "atomically",
            "2.1.1",
            &["node", "node_modules/atomically"],
            r#"run node write.mjs atomically root "$text""#,
        )
    },
    Writer {
        rows: &["atomically"],
        leaves: &[beside(
            "data.json.tmp-59807919211080cb",
            r"data\.json\.tmp-\d{10}[0-9a-f]{6}",
            outcomes(Removed, Removed),
            outcomes(Moved, Moved),
        )],
        ..npm(
            "conf",
            "15.1.0",
            &["node", "node_modules/conf"],
            r#"run node write.mjs conf root "$text""#,
        )
    },
    Writer {
        rows: &["steno"],
        leaves_several: false,
        leaves: &[beside(
            ".data.json.tmp",
            r"\.data\.json\.tmp",
            outcomes(Moved, Removed),
            outcomes(Moved, Moved),
        )],
        ..npm(
            "steno",
            "4.0.2",
            &["node", "node_modules/steno"],
            r#"run node write.mjs steno root "$text""#,
        )
    },
    Writer {
        rows: &["steno"],
        leaves_several: false,
        leaves: &[beside(
            ".data.json.tmp",
            r"\.data\.json\.tmp",
            outcomes(Moved, Removed),
            outcomes(Moved, Moved),
        )],
        ..npm(
            "lowdb",
            "7.0.1",
            &["node", "node_modules/lowdb"],
            r#"run node write.mjs lowdb root "$text""#,
        )
    },
    Writer {
        rows: &["fs-safe"],
        leaves: &[beside(
            ".fs-safe-replace.<pid>.<uuid>.tmp",
            r"\.fs-safe-replace\.\d+\.[0-9a-f-]{36}\.tmp",
            outcomes(Moved, Moved),
            outcomes(Moved, Moved),
        )],
        ..npm(
            "@openclaw/fs-safe",
            "0.3.0",
            &["node", "node_modules/@openclaw/fs-safe"],
            r#"run node write.mjs fs-safe root "$text""#,
        )
    },
    Writer {
        rows: &["fs-safe"],
        // The copy fallback has removed the target: the temp is all that is left.
        target: None,
        prepare: r#"node write.mjs fs-safe root "$text""#,
        kill: Kill::AfterFailedRename,
        leaves_several: false,
        leaves: &[alone(
            ".fs-safe-replace.<pid>.<uuid>.tmp",
            r"\.fs-safe-replace\.\d+\.[0-9a-f-]{36}\.tmp",
            Moved,
            Moved,
        )],
        check: r#"node write.mjs fs-safe root "$text"; grep -q "$text" root/data.json"#,
        ..npm(
            "@openclaw/fs-safe, which copies after EPERM",
            "0.3.0",
            &["node", "node_modules/@openclaw/fs-safe"],
            r#"run node write.mjs fs-safe-copy root "$text""#,
        )
    },
    Writer {
        rows: &["openclaw"],
        target: Some("sessions.json"),
        leaves: &[beside(
            "sessions.json.<pid>.<uuid>.tmp",
            r"sessions\.json\.\d+\.[0-9a-f-]{36}\.tmp",
            outcomes(Removed, Removed),
            outcomes(Moved, Moved),
        )],
        check: r#"write; grep -q "$text" root/sessions.json"#,
        ..npm(
            "@openclaw/fs-safe, with openclaw's prefix",
            "0.3.0",
            &["node", "node_modules/@openclaw/fs-safe"],
            r#"run node write.mjs fs-safe-sessions root "$text""#,
        )
    },
];

/// A Python program that writes `cfg.json`.
const fn python(name: &'static str, version: &'static str, write: &'static str) -> Writer {
    Writer {
        name,
        version,
        tools: &["python3"],
        write,
        check: r#"write; python3 -c 'import json, sys; assert json.load(open("root/cfg.json"))["text"] == sys.argv[1]' "$text""#,
        target: Some("cfg.json"),
        ..WRITER
    }
}

pub(super) const PYTHON: &[Writer] = &[
    Writer {
        rows: &["python"],
        leaves: &[beside(
            "tmp6isdc1hx",
            r"tmp([a-z0-9_]{8})",
            outcomes(Untouched, Moved),
            outcomes(Untouched, Moved),
        )],
        ..python(
            "Python, NamedTemporaryFile and os.replace",
            "3.11",
            r#"run python3 write.py plain root "$text""#,
        )
    },
    Writer {
        rows: &["python-suffix"],
        leaves: &[beside(
            "cfg.json.r3tea0ke.tmp",
            r"cfg\.json\.([a-z0-9_]{8})\.tmp",
            outcomes(Moved, Removed),
            outcomes(Moved, Moved),
        )],
        ..python(
            "Python, the same with a prefix and a suffix",
            "3.11",
            r#"run python3 write.py suffix root "$text""#,
        )
    },
    Writer {
        tools: &["python3", "python/atomicwrites"],
        rows: &["python"],
        leaves: &[beside(
            "tmpomabx3ij",
            r"tmp([a-z0-9_]{8})",
            outcomes(Untouched, Moved),
            outcomes(Untouched, Moved),
        )],
        ..python(
            "atomicwrites",
            "1.4.1",
            r#"run python3 write.py atomicwrites root "$text""#,
        )
    },
    Writer {
        tools: &["python3", "python/atomicwrites"],
        rows: &["python"],
        target: None,
        kill: Kill::Unlink(1),
        leaves_several: false,
        leaves: &[alone(
            "tmpuwqs1sve, a hard link to its target",
            r"tmp([a-z0-9_]{8})",
            Untouched,
            Kept("hard-linked"),
        )],
        finished: r"cfg\.json",
        check: r#"test -s root/cfg.json"#,
        ..python(
            "atomicwrites, without overwriting",
            "1.4.1",
            r#"rm -f root/cfg.json; export times=1; run python3 write.py atomicwrites-new root "$text""#,
        )
    },
    Writer {
        tools: &["python3"],
        prepare: "echo 'x = 1' > root/mod.py",
        target: Some("__pycache__/mod.pyc"),
        leaves: &[beside(
            "__pycache__/mod.pyc.139940228283632",
            r"__pycache__/mod\.pyc\.\d+",
            outcomes(Untouched, Untouched),
            outcomes(Untouched, Untouched),
        )],
        check: "write; test -s root/__pycache__/mod.pyc",
        ..python(
            "Python, py_compile",
            "3.11",
            r#"mkdir -p root/__pycache__
run python3 -c 'import py_compile; py_compile.compile("root/mod.py", "root/__pycache__/mod.pyc", doraise=True)'"#,
        )
    },
    Writer {
        tools: &["python3", "pip3"],
        prepare: PIP_PREPARE,
        target: None,
        leaves: &[alone(
            "INSTALLERdw7t6oai.tmp",
            r".*\.dist-info/INSTALLER[a-z0-9_]{8}\.tmp",
            Moved,
            Moved,
        )],
        finished: r".*/(tiny\.py|tiny-1\.0\.dist-info/(RECORD|METADATA|WHEEL))",
        check: r#"write; find root -name INSTALLER | grep -q ."#,
        ..python(
            "pip install",
            "23.0.1",
            "run python3 -m pip -q install --disable-pip-version-check --no-compile --no-index --no-deps \
             --ignore-installed --prefix \"$PWD/root\" tiny-1.0-py3-none-any.whl",
        )
    },
];

const PIP_PREPARE: &str = r#"python3 - <<'END'
import zipfile

info = "tiny-1.0.dist-info/"
wheel = zipfile.ZipFile("tiny-1.0-py3-none-any.whl", "w")
wheel.writestr("tiny.py", "x = 1\n")
wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
wheel.writestr(info + "RECORD", f"tiny.py,,\n{info}METADATA,,\n{info}WHEEL,,\n{info}RECORD,,\n")
wheel.close()
END"#;

/// A command of git in the repository `root`.
const fn git(name: &'static str, prepare: &'static str, write: &'static str) -> Writer {
    Writer {
        name,
        version: "2.47.3",
        tools: &["git"],
        rows: &["git"],
        prepare,
        write,
        check: GIT_CHECK,
        kill: Kill::Link(1),
        ..WRITER
    }
}

const GIT_CHECK: &str = r#"git -C root fsck --strict --no-dangling
git -C root count-objects -v | grep -qx 'garbage: 0'"#;

const REPOSITORY: &str = r#"git config --global pack.writeReverseIndex true
git init -q root
for file in a b c; do
    seq 1 99 > root/$file
    git -C root add $file
    git -C root commit -q -m $file
done"#;

pub(super) const GIT: &[Writer] = &[
    Writer {
        leaves: &[alone(
            "objects/ce/tmp_obj_VTR8LD",
            r"\.git/objects/[0-9a-f]{2}/tmp_obj_([A-Za-z0-9]{6})",
            Removed,
            Removed,
        )],
        ..git(
            "git hash-object",
            REPOSITORY,
            r#"echo "$text" | run git -C root hash-object -w --stdin"#,
        )
    },
    Writer {
        leaves: &[
            alone(
                "pack/tmp_pack_DiXmtJ",
                r"\.git/objects/pack/tmp_pack_([A-Za-z0-9]{6})",
                Removed,
                Removed,
            ),
            alone(
                "pack/tmp_idx_YJqBCB",
                r"\.git/objects/pack/tmp_idx_([A-Za-z0-9]{6})",
                Removed,
                Removed,
            ),
            alone(
                "pack/tmp_rev_HYxHwn",
                r"\.git/objects/pack/tmp_rev_([A-Za-z0-9]{6})",
                Removed,
                Removed,
            ),
        ],
        ..git("git repack", REPOSITORY, "run git -C root repack -adq")
    },
    Writer {
        kill: Kill::Link(3),
        leaves: &[
            alone(
                "pack/.tmp-<pid>-pack-<40 hex>.pack",
                r"\.git/objects/pack/\.tmp-\d+-pack-[0-9a-f]{40}\.pack",
                Removed,
                Removed,
            ),
            alone(
                "pack/.tmp-<pid>-pack-<40 hex>.rev",
                r"\.git/objects/pack/\.tmp-\d+-pack-[0-9a-f]{40}\.rev",
                Removed,
                Removed,
            ),
            alone(
                "pack/tmp_idx_IAA9si",
                r"\.git/objects/pack/tmp_idx_([A-Za-z0-9]{6})",
                Removed,
                Removed,
            ),
        ],
        ..git(
            "git repack, at the third rename",
            REPOSITORY,
            "run git -C root repack -adq",
        )
    },
    Writer {
        leaves: &[
            alone(
                "pack/tmp_pack_mCzfUS",
                r"\.git/objects/pack/tmp_pack_([A-Za-z0-9]{6})",
                Removed,
                Removed,
            ),
            alone(
                "pack/tmp_idx_Rsybio",
                r"\.git/objects/pack/tmp_idx_([A-Za-z0-9]{6})",
                Removed,
                Removed,
            ),
            alone(
                "pack/tmp_rev_3xbyAC",
                r"\.git/objects/pack/tmp_rev_([A-Za-z0-9]{6})",
                Removed,
                Removed,
            ),
            untouched(
                "pack/pack-<40 hex>.keep",
                r"\.git/objects/pack/pack-[0-9a-f]{40}\.keep",
            ),
        ],
        finished: r"\.git/FETCH_HEAD",
        leaves_several: false,
        check: "write\ngit -C root fsck --strict\ngit -C root count-objects -v | grep -qx 'garbage: 0'",
        ..git(
            "git fetch",
            "git config --global pack.writeReverseIndex true
mkdir source
(cd source; git init -q .; echo 1 > a; git add a; git commit -q -m a)
git init -q root",
            "run git -C root -c fetch.unpackLimit=1 fetch -q ../source HEAD:refs/heads/fetched",
        )
    },
    Writer {
        leaves: &[
            untouched("packed-refs.new", r"\.git/packed-refs\.new"),
            untouched("packed-refs.lock", r"\.git/packed-refs\.lock"),
        ],
        leaves_several: false,
        ..git(
            "git pack-refs",
            REPOSITORY,
            "run git -C root pack-refs --all",
        )
    },
    Writer {
        rows: &["git", "git-info"],
        leaves: &[alone(
            "info/refs_1IhNGK",
            r"\.git/info/refs_([A-Za-z0-9]{6})",
            Untouched,
            Removed,
        )],
        ..git(
            "git update-server-info",
            REPOSITORY,
            "run git -C root update-server-info",
        )
    },
    Writer {
        leaves: &[
            alone(
                "objects/0c/tmp_obj_6bEMEN",
                r"\.git/objects/[0-9a-f]{2}/tmp_obj_([A-Za-z0-9]{6})",
                Removed,
                Removed,
            ),
            untouched("index.lock", r"\.git/index\.lock"),
        ],
        finished: "added",
        leaves_several: false,
        check: "rm -f root/.git/index.lock; write; git -C root ls-files --error-unmatch added; git -C root fsck --strict
git -C root count-objects -v | grep -qx 'garbage: 0'",
        ..git(
            "git add",
            REPOSITORY,
            r#"echo "$text" > root/added; run git -C root add added"#,
        )
    },
    Writer {
        leaves: &[
            alone(
                "pack/tmp_pack_mCzfUS",
                r"\.git/objects/pack/tmp_pack_([A-Za-z0-9]{6})",
                Removed,
                Removed,
            ),
            alone(
                "pack/tmp_idx_Rsybio",
                r"\.git/objects/pack/tmp_idx_([A-Za-z0-9]{6})",
                Removed,
                Removed,
            ),
            alone(
                "pack/tmp_rev_3xbyAC",
                r"\.git/objects/pack/tmp_rev_([A-Za-z0-9]{6})",
                Removed,
                Removed,
            ),
        ],
        ..git(
            "git bundle unbundle",
            "git config --global pack.writeReverseIndex true
mkdir source
(cd source; git init -q .; echo 1 > a; git add a; git commit -q -m a; git bundle create -q ../bundle HEAD)
git init -q root",
            "run git -C root bundle unbundle ../bundle",
        )
    },
    Writer {
        rows: &["git", "git-info"],
        kill: Kill::Link(5),
        leaves: &[alone(
            "objects/info/packs_Zhp9pQ",
            r"\.git/objects/info/packs_([A-Za-z0-9]{6})",
            Untouched,
            Removed,
        )],
        finished: r"\.git/(packed-refs|info/refs|objects/pack/pack-[0-9a-f]{40}\.(pack|idx|rev))",
        leaves_several: false,
        ..git(
            "git gc",
            "git config --global core.logAllRefUpdates false
git config --global gc.writeCommitGraph false
git config --global pack.writeReverseIndex true
git init -q root
cd root
echo 1 > a
git add a
git commit -q -m a",
            "git -C root rev-list HEAD > root/a; git -C root commit -q -a -m b; run git -C root gc -q",
        )
    },
];

pub(super) const TOOLS: &[Writer] = &[
    Writer {
        name: "rsync",
        version: "3.5.0",
        tools: &["rsync"],
        rows: &["rsync"],
        write: r#"echo "$text" > big.iso; run rsync -aI big.iso root/"#,
        check: "write; cmp big.iso root/big.iso",
        target: Some("big.iso"),
        leaves: &[beside(
            ".big.iso.wdAdVS",
            r"\.big\.iso\.([A-Za-z0-9]{6})",
            outcomes(Untouched, Moved),
            outcomes(Untouched, Moved),
        )],
        ..WRITER
    },
    Writer {
        name: "vim, its viminfo file",
        version: "9.0.1378",
        tools: &["vim"],
        prepare: VIM,
        write: VIM,
        check: r#"write; grep -q "$text" root/.viminfo"#,
        // It removes the target before the rename.
        target: None,
        leaves_several: false,
        leaves: &[alone(".viminfo.tmp", r"\.viminfo\.tmp", Moved, Moved)],
        ..WRITER
    },
    Writer {
        name: "glib-compile-schemas",
        version: "2.74.6",
        tools: &["glib-compile-schemas"],
        rows: &["glib"],
        write: r#"mkdir -p schemas
cat > schemas/a.gschema.xml <<END
<schemalist><schema id="a.b" path="/a/b/"><key name="k" type="s"><default>'$text'</default></key></schema></schemalist>
END
run glib-compile-schemas --targetdir root schemas"#,
        check: r#"write; grep -q "$text" root/gschemas.compiled"#,
        target: Some("gschemas.compiled"),
        leaves: &[beside(
            "gschemas.compiled.GHTIZ3",
            r"gschemas\.compiled\.([A-Z0-9]{6})",
            outcomes(Untouched, Removed),
            outcomes(Untouched, Moved),
        )],
        ..WRITER
    },
    Writer {
        name: "logrotate",
        version: "3.21.0",
        tools: &["logrotate"],
        write: r#"echo "$text" > "$text".log
printf '%s/*.log {\n size 1M\n}\n' "$PWD" > rotate.conf
chmod 600 rotate.conf
run logrotate -s root/state rotate.conf"#,
        check: r#"write; grep -q "$text" root/state"#,
        target: Some("state"),
        leaves_several: false,
        leaves: &[beside(
            "state.tmp",
            r"state\.tmp",
            outcomes(Removed, Removed),
            outcomes(Moved, Moved),
        )],
        // It creates an empty one first.
        finished: "state",
        ..WRITER
    },
    Writer {
        name: "gpg --import",
        leaves: &[beside(
            "pubring.kbx.tmp",
            r"pubring\.kbx\.tmp",
            outcomes(Removed, Removed),
            None,
        )],
        ..GPG
    },
    Writer {
        name: "gpg --import, at the second rename",
        kill: Kill::Rename(2),
        // The old file has been renamed to its backup.
        target: None,
        leaves: &[alone("pubring.kbx.tmp", r"pubring\.kbx\.tmp", Moved, Moved)],
        ..GPG
    },
    Writer {
        name: "sed -i",
        version: "4.9",
        tools: &["sed"],
        prepare: r#"echo "$text" > root/f"#,
        write: "run sed -i s/x/y/ root/f",
        check: "write; test -s root/f",
        target: Some("f"),
        leaves: &[beside(
            "sedSjXpbh",
            r"sed[A-Za-z0-9]{6}",
            outcomes(Untouched, Untouched),
            None,
        )],
        ..WRITER
    },
    Writer {
        name: "ldconfig",
        version: "2.36",
        tools: &["ldconfig"],
        write: r#": > conf; run ldconfig -X -f conf -C "$PWD/root/cache""#,
        check: "write; test -s root/cache",
        target: Some("cache"),
        leaves_several: false,
        leaves: &[beside(
            "cache~",
            "cache~",
            outcomes(Untouched, Untouched),
            outcomes(Untouched, Untouched),
        )],
        ..WRITER
    },
    Writer {
        name: "tempfile, NamedTempFile::persist",
        version: "3.27",
        tools: &[],
        rows: &["rust-tempfile"],
        write: r#"export ORPHAND_TEST_PERSIST="$PWD/root/data" text
run "$SELF" --exact killed_programs::kill::persist_a_tempfile --ignored"#,
        check: r#"write; grep -qx "$text" root/data"#,
        target: Some("data"),
        leaves: &[beside(
            ".tmpa5GJ0w",
            r"\.tmp([A-Za-z0-9]{6})",
            outcomes(Untouched, Moved),
            outcomes(Untouched, Moved),
        )],
        ..WRITER
    },
];

const VIM: &str =
    r#"run vim -N -u NONE -i root/.viminfo -es "+call histadd('cmd', '$text')" +wviminfo +qa"#;

const GPG: Writer = Writer {
    version: "2.2.40",
    tools: &["gpg"],
    prepare: GPG_PREPARE,
    write: r#"run gpg --homedir root --batch --quiet --import "$(echo "$text" | cut -c 1).asc""#,
    check: "cp b.asc z.asc; write; gpg --homedir root --batch --list-keys b@c",
    target: Some("pubring.kbx"),
    leaves_several: false,
    finished: r".*\.lock|\.#lk.*",
    ..WRITER
};

/// Two public keys that were made for this test.
const GPG_PREPARE: &str = "chmod 700 root
cat > a.asc <<END
-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawyBThYJKwYBBAHaRw8BAQdAWDgYuluDhlK573hm3M+H0NL6xewuc2ABW3I/
ynZe2RO0DHdyaXRlciA8YUBiPoiQBBMWCAA4FiEEaQZf8bay1R56MivCjul3tOR9
qMsFAmsMgU4CGwMFCwkIBwIGFQoJCAsCBBYCAwECHgECF4AACgkQjul3tOR9qMuo
CAEA3YbfOUNT9WoYlHG4A4tnnxRB8B/mTob0hbmJzzZZhMgBAM+qT/Sw7OYSV8J3
fNuUMEYD5fZm9wdcr+hneuGh1cAN
=aish
-----END PGP PUBLIC KEY BLOCK-----
END
cat > b.asc <<END
-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawyD3xYJKwYBBAHaRw8BAQdA1uw1Bp2k6Ghh3Lv0zKS4ZSe+qVzQ5jpAZbbq
PessZWq0C290aGVyIDxiQGM+iJAEExYIADgWIQT/THhMKlrdK0dE7umiSlVOMrnu
WQUCawyD3wIbAwULCQgHAgYVCgkICwIEFgIDAQIeAQIXgAAKCRCiSlVOMrnuWdzh
AP9XLdtbprG0jXcfkp/fcB2Iuoc/YoKTXvSZqhY9Gc6YlQEAg6xSxiizv5cMAAC9
PWJTXZvzL1MrW610yZcHmbesfAo=
=W+DO
-----END PGP PUBLIC KEY BLOCK-----
END
gpg --homedir root --batch --quiet --import a.asc";

/// A command of sqlite3 on the database `root/a.db`.
const fn sqlite(name: &'static str, write: &'static str, kill: Kill) -> Writer {
    Writer {
        name,
        version: "3.40.1",
        tools: &["sqlite3"],
        prepare: r#"sqlite3 root/a.db "create table t(x); with recursive c(i) as (select 1 union all select i + 1 \
            from c where i < 20000) insert into t select hex(randomblob(50)) from c;""#,
        write,
        check: r#"test "$(sqlite3 root/a.db 'pragma integrity_check; select count(*), count(distinct x) from t')" = 'ok
20000|20000'"#,
        kill,
        leaves_several: false,
        ..WRITER
    }
}

pub(super) const DATABASES: &[Writer] = &[
    Writer {
        leaves: &[
            untouched("b.db", r"b\.db"),
            untouched("b.db-journal", r"b\.db-journal"),
        ],
        ..sqlite(
            "sqlite3, VACUUM INTO",
            r#"rm -f root/b.db; run sqlite3 root/a.db "vacuum into 'root/b.db'""#,
            Kill::Sync(3),
        )
    },
    Writer {
        leaves: &[untouched("a.db-journal", r"a\.db-journal")],
        ..sqlite(
            "sqlite3, VACUUM",
            "run sqlite3 root/a.db vacuum",
            Kill::Sync(2),
        )
    },
    Writer {
        leaves: &[untouched("a.db-journal", r"a\.db-journal")],
        ..sqlite(
            "sqlite3, a large UPDATE",
            r#"run sqlite3 root/a.db "update t set x = x || 'a'""#,
            Kill::Sync(6),
        )
    },
    Writer {
        name: "redis-server, SAVE",
        version: "7.0.15",
        tools: &["redis-cli", "redis-check-rdb"],
        rows: &["redis"],
        prepare: r#"ln -s "$(command -v redis-check-rdb)" redis-server"#,
        write: REDIS,
        check: "write; redis-check-rdb root/dump.rdb",
        target: Some("dump.rdb"),
        leaves: &[beside(
            "temp-<pid>.rdb",
            r"temp-\d+\.rdb",
            outcomes(Untouched, Moved),
            outcomes(Untouched, Moved),
        )],
        ..WRITER
    },
    Writer {
        name: "redis-server, CONFIG REWRITE",
        rows: &["redis-rewrite"],
        version: "7.0.15",
        tools: &["redis-cli", "redis-check-rdb"],
        prepare: r#"ln -s "$(command -v redis-check-rdb)" redis-server
printf 'port 0\nunixsocket %s/socket\nsave ""\n' "$PWD" > root/redis.conf"#,
        write: REDIS_CONFIG,
        check: r#"write; grep -qx 'maxmemory 100mb' root/redis.conf"#,
        leaves: &[alone(
            "redis.conf.3n0J11",
            r"redis\.conf\.([A-Za-z0-9]{6})",
            Untouched,
            Removed,
        )],
        ..WRITER
    },
    Writer {
        leaves: &[
            alone("hints.9.tmp", r"repo/hints\.9\.tmp", Moved, Moved),
            alone("index.9.tmp", r"repo/index\.9\.tmp", Moved, Moved),
            alone("integrity.9.tmp", r"repo/integrity\.9\.tmp", Moved, Moved),
        ],
        tools: &["borg", FREE_PID],
        ..borg("borg create", Kill::Rename(5))
    },
    Writer {
        leaves: &[alone(
            "location-5q27izfq.tmp",
            r"home/\.config/borg/security/[0-9a-f]{64}/location-[a-z0-9_]{8}\.tmp",
            Moved,
            Moved,
        )],
        rows: &["python-suffix"],
        ..borg("borg create, at the eighth rename", Kill::Rename(8))
    },
];

/// The server listens only on a socket in the sandbox.
const REDIS: &str = r#"run ./redis-server --port 0 --unixsocket "$PWD/socket" --dir "$PWD/root" --save '' --logfile "$PWD/log" &
server=$!
for try in $(seq 500); do
    if redis-cli -s socket ping > answer 2>&1 && grep -q PONG answer; then break; fi
    sleep 0.02
done
redis-cli -s socket set key "$text"
redis-cli -s socket save || true
redis-cli -s socket shutdown nosave || true
wait $server || true"#;

const REDIS_CONFIG: &str = r#"run ./redis-server "$PWD/root/redis.conf" > log &
server=$!
for try in $(seq 500); do
    if redis-cli -s socket ping > answer 2>&1 && grep -q PONG answer; then break; fi
    sleep 0.02
done
redis-cli -s socket config set maxmemory 100mb
redis-cli -s socket config rewrite || true
redis-cli -s socket shutdown nosave || true
wait $server || true"#;

/// `borg create` in the repository `root/repo`, with the home `root/home`.
const fn borg(name: &'static str, kill: Kill) -> Writer {
    Writer {
        name,
        version: "1.2.4",
        tools: &["borg"],
        prepare: r#"mkdir source
seq 1 9999 > source/a
borg init -e none root/repo
borg create root/repo::first source"#,
        write: r#"echo "$text" > source/b; run borg create "root/repo::{now:%s.%f}" source"#,
        check: r#"borg break-lock root/repo
borg check --verify-data root/repo
echo again > source/b
borg create root/repo::again source
borg check root/repo"#,
        kill,
        leaves_several: false,
        finished: r"repo/(data/0/\d+|(hints|index|integrity)\.9|lock\..*)|home/\.cache/.*|home/.*/location",
        ..WRITER
    }
}

pub(super) const PACKAGES: &[Writer] = &[
    Writer {
        name: "dpkg -i",
        version: "1.21.22",
        tools: &["dpkg", "dpkg-deb", "root"],
        prepare: DPKG_PREPARE,
        write: r#"run dpkg --root="$PWD/root" -i two.deb"#,
        check: r#"write
test "$(cat root/etc/example.conf root/usr/share/example/a)" = 'two
two'
test -z "$(dpkg --root="$PWD/root" --audit)""#,
        kill: Kill::Rename(4),
        leaves_several: false,
        leaves: &[
            untouched("a.dpkg-new", r"usr/share/example/[ab]\.dpkg-new"),
            untouched(
                "a.dpkg-tmp, a hard link",
                r"usr/share/example/[ab]\.dpkg-tmp",
            ),
            untouched("example.conf.dpkg-new", r"etc/example\.conf\.dpkg-new"),
            untouched("updates/tmp.i", r"var/lib/dpkg/updates/tmp\.i"),
        ],
        finished: r"var/lib/dpkg/(lock|lock-frontend|triggers/.*|updates/\d+|tmp\.ci/.*)",
        ..WRITER
    },
    Writer {
        name: "dpkg --unpack, not killed",
        version: "1.21.22",
        tools: &["dpkg", "dpkg-deb", "root"],
        prepare: DPKG_PREPARE,
        write: r#"dpkg --root="$PWD/root" --unpack two.deb"#,
        check: r#"dpkg --root="$PWD/root" --configure -a
test "$(cat root/etc/example.conf)" = two"#,
        leaves_several: false,
        leaves: &[untouched(
            "example.conf.dpkg-new",
            r"etc/example\.conf\.dpkg-new",
        )],
        finished: r"var/lib/dpkg/.*",
        ..WRITER
    },
    Writer {
        name: "ccache",
        version: "4.7.5",
        tools: &["ccache", "cc"],
        rows: &["ccache"],
        write: r#"export CCACHE_DIR="$PWD/root"
echo "int $text;" > a.c
run ccache cc -c a.c -o a.o"#,
        check: "write; write; ccache --print-stats | grep -q '^direct_cache_hit\t[1-9]'",
        leaves_several: false,
        leaves: &[alone(
            "<hash>R.tmp.ySerDQ.tmp",
            r"[0-9a-f]/[0-9a-f]/[0-9a-z]+R\.tmp\.[A-Za-z0-9]{6}\.tmp",
            Moved,
            Moved,
        )],
        finished: "tmp/.*|ccache.conf|CACHEDIR.TAG",
        ..WRITER
    },
];

const DPKG_PREPARE: &str = r#"mkdir -p root/var/lib/dpkg/updates root/var/lib/dpkg/info
touch root/var/lib/dpkg/status root/var/lib/dpkg/available
mkdir -p package/DEBIAN package/etc package/usr/share/example
echo /etc/example.conf > package/DEBIAN/conffiles
for version in one two; do
    printf 'Package: example\nVersion: 1%s\nArchitecture: all\nMaintainer: a <a@b>\nDescription: a\n' \
        $version > package/DEBIAN/control
    for file in etc/example.conf usr/share/example/a usr/share/example/b; do
        echo $version > package/$file
    done
    dpkg-deb --root-owner-group -b package $version.deb
done
dpkg --root="$PWD/root" -i one.deb"#;
