//! Writes a service file atomically.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use orphand::store::regular_file;

/// launchd refuses a file that other users may write, and other tools must be able to read it.
const MODE: u32 = 0o644;

/// Replaces the file at `path` with `text`, readable by all users whatever the umask is, and creates its folder.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut temp = path.as_os_str().to_owned();
    // Neither launchd nor systemd reads a file with this suffix.
    temp.push(".new");
    regular_file::replace(path, Path::new(&temp), MODE, |file| {
        file.set_permissions(Permissions::from_mode(MODE))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_file_is_complete_and_no_temp_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below/x.plist");
        write(&path, "one").unwrap();
        // A killed process may have left it, or another process may have put a symlink there.
        symlink(
            dir.path().join("elsewhere"),
            dir.path().join("below/x.plist.new"),
        )
        .unwrap();
        write(&path, "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(
            path.metadata().unwrap().permissions().mode() & 0o7777,
            0o644
        );
        assert_eq!(fs::read_dir(dir.path().join("below")).unwrap().count(), 1);
        assert!(!dir.path().join("elsewhere").exists());
    }

    #[test]
    fn a_failed_write_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::create_dir(&path).unwrap();
        write(&path, "one").unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
