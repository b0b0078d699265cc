//! Roots that programs on other machines reach: exported by NFS, shared by Samba.

use std::path::{Path, PathBuf};

use orphand::state::read_regular;

use super::super::text;
use super::check::Check;

/// A folder that other machines reach, and the file that says so.
type SharedDir = (PathBuf, &'static str);

/// The most that such a file is read of: bytes.
const LARGEST: u64 = 16_000_000;

/// What this machine shares, as far as its files may be read.
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

/// The folders of exports(5): first on their lines, spaces as `\040` or the whole in quotes.
fn nfs_exports(text: &str) -> Vec<PathBuf> {
    let text = text.replace("\\\n", " ");
    let first = |line: &str| {
        let line = line.trim_start();
        let path = match line.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next()?,
            None => line.split_ascii_whitespace().next()?,
        };
        path.starts_with('/').then(|| decode_octal(path))
    };
    text.lines().filter_map(first).collect()
}

/// Characters as `\` and three octal digits, as tables of mounts and exports have them.
pub(super) fn decode_octal(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| byte == b'\\');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(meant) => {
                out.push(meant);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(out).into()
}

/// The folders of smb.conf(5), where they do not depend on who asks.
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

/// `root` is real: no part of it is a symlink.
pub(super) fn judge(root: &Path, shared: &[SharedDir]) -> Check {
    let reaches = |path: &Path| root.starts_with(path) || path.starts_with(root);
    match shared.iter().find(|(path, _)| reaches(path)) {
        None => Check::ok(
            "sharing",
            "not shared with other machines, as far as can be seen",
        ),
        Some((path, table)) => Check::warning(
            "sharing",
            format!(
                "{} is shared with other machines ({table}): a program over there that has a file \
                 open without this kernel's knowledge is not seen by the proof",
                text::escaped(path)
            ),
            "let no other machine write temps there; or lose nothing: action = \"quarantine\" in \
             the rule",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckState;
    use super::*;

    #[test]
    fn tables_are_read() {
        let exports = "# Version 1.1\n# Path Client(Flags)\n/srv\t*(rw)\n\n\
                       /a\\040b host(ro)\n\"/c d\" *\n/long \\\n  host1 \\\n  host2\nodd\n";
        let want = ["/srv", "/a b", "/c d", "/long"].map(PathBuf::from);
        assert_eq!(nfs_exports(exports), want);
        let samba = "[global]\n workgroup = X\n[a]\n  path = /srv/a\n[b]\nPath=\"/b c\"\n\
                     [homes]\n path = /home/%U\n; path = /no\n# path = /no\n";
        assert_eq!(samba_shares(samba), ["/srv/a", "/b c"].map(PathBuf::from));
    }

    #[test]
    fn what_is_shared() {
        let shared = [(PathBuf::from("/srv/data"), "/etc/exports")];
        for (root, state) in [
            ("/srv/data", CheckState::Warning),
            ("/srv/data/app", CheckState::Warning),
            // A part of it is.
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
