//! Judges whether other machines can reach a root: through an NFS export or a Samba share.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use orphand::store::regular_file::read_regular;
use orphand::sys::mountinfo;

use super::check::Check;
use crate::cli::output::text;

/// A directory that other machines reach, and the file that lists it.
type SharedDir = (PathBuf, &'static str);

/// The most bytes that are read of such a file.
const LARGEST: u64 = 16_000_000;

/// Returns the directories that this machine shares, by the files that can be read.
pub(super) fn shared_dirs() -> Vec<SharedDir> {
    let mut all = Vec::new();
    let read = |table: &str| {
        let bytes = read_regular(Path::new(table), LARGEST).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    };
    for table in ["/proc/fs/nfs/exports", "/etc/exports"] {
        let text = read(table);
        all.extend(nfs_exports(&text).into_iter().map(|path| (path, table)));
    }
    for table in ["/etc/samba/smb.conf", "/usr/local/etc/smb.conf"] {
        let text = read(table);
        all.extend(samba_shares(&text).into_iter().map(|path| (path, table)));
    }
    all
}

/// Returns the directories of exports(5): the first word of each line, with spaces as `\040` or in quotes.
fn nfs_exports(text: &str) -> Vec<PathBuf> {
    let text = text.replace("\\\n", " ");
    let first = |line: &str| {
        let line = line.trim_start();
        let path = match line.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next()?,
            None => line.split_ascii_whitespace().next()?,
        };
        path.starts_with('/')
            .then(|| OsString::from_vec(mountinfo::unescape(path.as_bytes())).into())
    };
    text.lines().filter_map(first).collect()
}

/// Returns the directories of smb.conf(5), except those that depend on the client.
fn samba_shares(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let (key, value) = line.split_once('=')?;
        let key = key.trim().to_ascii_lowercase();
        let value = value.trim().trim_matches('"');
        let is_path = matches!(key.as_str(), "path" | "directory");
        (is_path && value.starts_with('/') && !value.contains('%')).then(|| value.into())
    };
    text.lines().filter_map(path).collect()
}

/// Judges `root`, in whose path all symlinks are resolved.
pub(super) fn judge(root: &Path, shared: &[SharedDir]) -> Check {
    let reaches = |path: &Path| root.starts_with(path) || path.starts_with(root);
    match shared.iter().find(|(path, _)| reaches(path)) {
        None => Check::ok("sharing", "not known to be shared with other machines"),
        Some((path, table)) => Check::warning(
            "sharing",
            format!(
                "{} is shared with other machines ({table}): the proof does not see a program on another machine that \
                 has a file open without this kernel's knowledge",
                text::escaped(path)
            ),
            "let no other machine write temps there; or, to lose nothing: action = \"quarantine\" in the rule",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckState;
    use super::*;

    #[test]
    fn shared_directories_are_read_from_the_tables() {
        let exports = "# Version 1.1\n# Path Client(Flags)\n/srv\t*(rw)\n\n\
                       /a\\040b host(ro)\n\"/c d\" *\n/long \\\n  host1 \\\n  host2\nodd\n";
        let want = ["/srv", "/a b", "/c d", "/long"].map(PathBuf::from);
        assert_eq!(nfs_exports(exports), want);
        let samba = "[global]\n workgroup = X\n[a]\n  path = /srv/a\n[b]\nPath=\"/b c\"\n\
                     [homes]\n path = /home/%U\n; path = /no\n# path = /no\n";
        assert_eq!(samba_shares(samba), ["/srv/a", "/b c"].map(PathBuf::from));
    }

    #[test]
    fn a_root_that_overlaps_a_shared_directory_is_a_warning() {
        let shared = [(PathBuf::from("/srv/data"), "/etc/exports")];
        for (root, state) in [
            ("/srv/data", CheckState::Warning),
            ("/srv/data/app", CheckState::Warning),
            // A part of it is shared.
            ("/srv", CheckState::Warning),
            ("/srv/database", CheckState::Ok),
            ("/other", CheckState::Ok),
        ] {
            let check = judge(Path::new(root), &shared);
            assert_eq!(check.state, state, "{root}");
        }
        assert!(
            judge(Path::new("/srv"), &shared)
                .what
                .contains("/etc/exports")
        );
    }
}
