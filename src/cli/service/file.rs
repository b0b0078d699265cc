//! Writes a service file: whole or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Launchd refuses a file that others may write, and other tools have to read it.
const MODE: u32 = 0o644;

/// Puts `text` at `path`, readable for all whatever the umask, and makes the folder.
///
/// The new file has one name, always the same: whoever is killed here leaves one temp, and the next
/// one takes it. RACE: two of us at once; in the worst case one of them finds its temp gone, and
/// says so. What stands at `path` is whole at any time.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut temp = path.as_os_str().to_owned();
    // Neither launchd nor systemd reads a file that ends like this.
    temp.push(".new");
    let temp = Path::new(&temp);
    let written = put(temp, text).and_then(|()| fs::rename(temp, path));
    if written.is_err() {
        let _ = fs::remove_file(temp);
    }
    written
}

fn put(temp: &Path, text: &str) -> io::Result<()> {
    match fs::remove_file(temp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(temp)?;
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn it_is_whole_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below/x.plist");
        write(&path, "one").unwrap();
        // Left by one that was killed; perhaps put there to lead elsewhere.
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
    fn what_was_there_stays_where_nothing_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::create_dir(&path).unwrap();
        write(&path, "one").unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
