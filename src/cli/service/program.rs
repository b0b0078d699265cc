//! The path of the program that a service starts: absolute, and the same after an upgrade.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The program that runs now, by the path under which it can be started later.
pub(super) fn current() -> io::Result<PathBuf> {
    Ok(stable(&env::current_exe()?, &|path| path.exists()))
}

/// What `running` is called when it was replaced, or will be. `exists` looks.
fn stable(running: &Path, exists: &dyn Fn(&Path) -> bool) -> PathBuf {
    let path = existing(running, exists);
    match homebrew_opt(&path) {
        Some(opt) if exists(&opt) => opt,
        _ => path,
    }
}

/// Linux says ` (deleted)` behind the path of a running program that an upgrade has replaced.
fn existing(path: &Path, exists: &dyn Fn(&Path) -> bool) -> PathBuf {
    let stripped = path
        .to_str()
        .and_then(|path| path.strip_suffix(" (deleted)"));
    match stripped {
        Some(stripped) if !exists(path) => PathBuf::from(stripped),
        _ => path.to_owned(),
    }
}

/// Homebrew keeps each version in a folder of its own, `Cellar/NAME/VERSION`, which an upgrade
/// removes; `opt/NAME` leads to the newest.
fn homebrew_opt(path: &Path) -> Option<PathBuf> {
    let parts: Vec<Component<'_>> = path.components().collect();
    let cellar = parts.iter().position(|part| part.as_os_str() == "Cellar")?;
    let prefix = parts.get(..cellar)?.iter().collect::<PathBuf>();
    let name = parts.get(cellar + 1)?;
    let below = parts.get(cellar + 3..)?.iter().collect::<PathBuf>();
    Some(prefix.join("opt").join(name).join(below))
}

/// Why the program may not stay where it is, if that is to be expected.
pub(super) fn temporary_place(path: &Path) -> Option<&'static str> {
    let parts: Vec<&OsStr> = path.components().map(Component::as_os_str).collect();
    let built = parts
        .iter()
        .position(|part| *part == "target")
        .is_some_and(|at| {
            let below = parts.iter().skip(at + 1);
            below
                .clone()
                .any(|part| *part == "debug" || *part == "release")
        });
    let temporary = [
        "/tmp",
        "/var/tmp",
        "/private/tmp",
        "/var/folders",
        "/private/var/folders",
    ];
    match () {
        () if built => Some("a build folder, which the next build or clean changes"),
        () if path.starts_with("/nix/store") => Some("a path that the next upgrade leaves behind"),
        () if temporary.iter().any(|folder| path.starts_with(folder)) => {
            Some("a folder for what is temporary")
        }
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_that_an_upgrade_leaves_alone() {
        const BREW: &str = "/opt/homebrew/opt/orphand/bin/orphand";
        const LINUX_BREW: &str = "/home/linuxbrew/.linuxbrew/opt/orphand/bin/orphand";
        for (running, there, want) in [
            (
                "/usr/bin/orphand",
                &["/usr/bin/orphand"][..],
                "/usr/bin/orphand",
            ),
            (
                "/opt/homebrew/Cellar/orphand/0.1.0/bin/orphand",
                &[BREW],
                BREW,
            ),
            (
                "/home/linuxbrew/.linuxbrew/Cellar/orphand/0.1.0/bin/orphand",
                &[LINUX_BREW],
                LINUX_BREW,
            ),
            // Upgraded while it runs: the kernel names what is gone.
            (
                "/opt/homebrew/Cellar/orphand/0.1.0/bin/orphand (deleted)",
                &[BREW],
                BREW,
            ),
            (
                "/usr/bin/orphand (deleted)",
                &["/usr/bin/orphand"],
                "/usr/bin/orphand",
            ),
            ("/usr/bin/orphand (deleted)", &[], "/usr/bin/orphand"),
            // A program may be called so.
            (
                "/a/x (deleted)",
                &["/a/x (deleted)", "/a/x"],
                "/a/x (deleted)",
            ),
            // There is no such path, so it is worth nothing.
            (
                "/opt/homebrew/Cellar/orphand/0.1.0/bin/orphand",
                &[],
                "/opt/homebrew/Cellar/orphand/0.1.0/bin/orphand",
            ),
            (
                "/srv/Cellar/orphand",
                &["/srv/Cellar/orphand"],
                "/srv/Cellar/orphand",
            ),
        ] {
            let exists = |path: &Path| there.iter().any(|known| Path::new(known) == path);
            assert_eq!(
                stable(Path::new(running), &exists),
                Path::new(want),
                "{running}"
            );
        }
    }

    #[test]
    fn where_a_program_does_not_stay() {
        for (path, doubtful) in [
            ("/usr/local/bin/orphand", false),
            ("/home/me/.cargo/bin/orphand", false),
            ("/srv/target/bin/orphand", false),
            ("/home/me/orphand/target/debug/orphand", true),
            (
                "/home/me/orphand/target/x86_64-unknown-linux-musl/release/orphand",
                true,
            ),
            ("/nix/store/abc-orphand-0.1.0/bin/orphand", true),
            ("/tmp/orphand", true),
        ] {
            assert_eq!(temporary_place(Path::new(path)).is_some(), doubtful, "{path}");
        }
    }
}
