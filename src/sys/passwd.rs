//! The password file, `/etc/passwd` (passwd(5)).
//!
//! Directory services such as LDAP are not asked: a query may block.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// An account of the password file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The name, without a check of its characters.
    pub name: Vec<u8>,
    /// The user id.
    pub uid: u32,
    /// The home directory; may be empty.
    pub home: PathBuf,
}

/// Returns the accounts of the password file; none if it cannot be read.
#[must_use]
pub fn accounts() -> Vec<Account> {
    parse(&fs::read("/etc/passwd").unwrap_or_default())
}

/// Returns the accounts in `passwd`. Lines that are not accounts, such as comments on macOS, are skipped. The text may
/// be any bytes: one name that is not UTF-8 must not hide the other accounts.
#[must_use]
pub fn parse(passwd: &[u8]) -> Vec<Account> {
    passwd
        .split(|byte| *byte == b'\n')
        .filter_map(account)
        .collect()
}

fn account(line: &[u8]) -> Option<Account> {
    let mut fields = line.split(|byte| *byte == b':');
    let name = fields.next()?;
    let uid = std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
    let home = fields.nth(2).unwrap_or_default();
    Some(Account {
        name: name.to_owned(),
        uid,
        home: OsStr::from_bytes(home).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_read_and_other_lines_skipped() {
        let text = b"# comment\nroot:x:0:0:root:/root:/bin/sh\n\nj\xff:x:1000:1000::/home/j\xff:\nbad:x:many:0::/h:\nshort:x:7\n";
        let found: Vec<(Vec<u8>, u32, PathBuf)> = parse(text)
            .into_iter()
            .map(|account| (account.name, account.uid, account.home))
            .collect();
        let home = |bytes: &'static [u8]| PathBuf::from(OsStr::from_bytes(bytes));
        assert_eq!(
            found,
            [
                (b"root".to_vec(), 0, home(b"/root")),
                (b"j\xff".to_vec(), 1000, home(b"/home/j\xff")),
                (b"short".to_vec(), 7, PathBuf::new()),
            ]
        );
    }
}
