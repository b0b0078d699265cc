//! Parses lines of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)), and the octal escapes that it and exports(5) use.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One line of the table of mounts.
#[derive(Debug)]
pub struct Mount<'a> {
    /// Number of the mount, as statx(2) reports it.
    pub id: u64,
    /// The first four fields as they are written: number of the mount, number of its parent, device, and the directory
    /// of the file system that is mounted.
    pub source: &'a [u8],
    /// The mount point.
    pub path: PathBuf,
    /// Type of the file system.
    pub kind: &'a [u8],
    /// Options of the file system.
    pub options: &'a [u8],
}

/// Parses `36 35 98:0 /mnt1 /mnt/parent rw,noatime master:1 - ext4 /dev/root rw`. Returns `None` if a field is missing.
#[must_use]
pub fn parse(line: &[u8]) -> Option<Mount<'_>> {
    const SEPARATOR: &[u8] = b" - ";
    let separator = line
        .windows(SEPARATOR.len())
        .position(|bytes| bytes == SEPARATOR)?;
    let (mount, file_system) = line.split_at_checked(separator)?;
    let mut fields = mount.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let path = fields.nth(3)?;
    let source = mount.split(|byte| *byte == b' ').take(4);
    // Each of the four fields is followed by one space.
    let source = source.map(|field| field.len() + 1).sum::<usize>() - 1;
    let mut file_system = file_system
        .get(SEPARATOR.len()..)?
        .split(|byte| *byte == b' ');
    Some(Mount {
        id,
        source: mount.get(..source)?,
        path: OsString::from_vec(unescape(path)).into(),
        kind: file_system.next()?,
        options: file_system.nth(1)?,
    })
}

/// Replaces each backslash with three octal digits by the byte with that value. The kernel writes space, tab, line
/// feed and backslash in this way.
#[must_use]
pub fn unescape(mut field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    while let [first, rest @ ..] = field {
        let (byte, after) = match (first, rest) {
            (
                b'\\',
                [
                    a @ b'0'..=b'3',
                    b @ b'0'..=b'7',
                    c @ b'0'..=b'7',
                    after @ ..,
                ],
            ) => {
                let digits = [a, b, c].map(|digit| digit - b'0');
                (
                    digits.iter().fold(0, |byte, digit| byte << 3 | digit),
                    after,
                )
            }
            _ => (*first, rest),
        };
        plain.push(byte);
        field = after;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_line_is_parsed() {
        let line = b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - fuse.sshfs h:/x rw,user=1";
        let mount = parse(line).unwrap();
        assert_eq!((mount.id, mount.path.as_path()), (36, Path::new("/mnt 2")));
        assert_eq!(mount.source, b"36 35 98:0 /mnt1");
        assert_eq!(
            (mount.kind, mount.options),
            (&b"fuse.sshfs"[..], &b"rw,user=1"[..])
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_are_kept() {
        let mount = parse(b"36 35 0:5 / /\xff rw - overlay x rw,lowerdir=/\xfe").unwrap();
        assert_eq!(mount.path.into_os_string().into_vec(), b"/\xff");
        assert_eq!(mount.options, b"rw,lowerdir=/\xfe");
    }

    #[test]
    fn an_incomplete_line_is_no_mount() {
        for broken in [
            "",
            "x",
            "36 35 0:5",
            "36 35 98:0 / /x rw - ext4",
            "a b c d e f - g h i",
        ] {
            assert!(parse(broken.as_bytes()).is_none(), "{broken}");
        }
    }

    #[test]
    fn octal_escapes_are_replaced() {
        for (field, plain) in [
            (r"/with\040space\134", r"/with space\"),
            (r"/not\04octal", r"/not\04octal"),
            (r"/not\400octal", r"/not\400octal"),
            (r"/not\+12octal", r"/not\+12octal"),
            (r"\011", "\t"),
        ] {
            assert_eq!(unescape(field.as_bytes()), plain.as_bytes(), "{field}");
        }
    }
}
