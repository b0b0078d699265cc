//! The path of the program that a service starts: absolute, and unchanged by an upgrade.

use std::env;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Returns the path under which the running program can be started later.
pub(super) fn current() -> io::Result<PathBuf> {
    Ok(stable(&env::current_exe()?, &|path| path.exists()))
}

/// Returns the path of `running` that stays valid after an upgrade. `exists` checks whether a path exists.
fn stable(running: &Path, exists: &dyn Fn(&Path) -> bool) -> PathBuf {
    let path = existing(running, exists);
    match homebrew_opt(&path) {
        Some(opt) if exists(&opt) => opt,
        _ => path,
    }
}

/// Removes the suffix ` (deleted)`, which Linux appends to the path of a running program that was replaced.
fn existing(path: &Path, exists: &dyn Fn(&Path) -> bool) -> PathBuf {
    let stripped = path
        .to_str()
        .and_then(|path| path.strip_suffix(" (deleted)"));
    match stripped {
        Some(stripped) if !exists(path) => PathBuf::from(stripped),
        _ => path.to_owned(),
    }
}

/// Returns the path in Homebrew's `opt/NAME`, which links to the newest version. Homebrew keeps each version in a
/// folder of its own, `Cellar/NAME/VERSION`, which an upgrade removes.
fn homebrew_opt(path: &Path) -> Option<PathBuf> {
    let parts: Vec<Component<'_>> = path.components().collect();
    let cellar = parts.iter().position(|part| part.as_os_str() == "Cellar")?;
    let prefix = parts.get(..cellar)?.iter().collect::<PathBuf>();
    let name = parts.get(cellar + 1)?;
    let below = parts.get(cellar + 3..)?.iter().collect::<PathBuf>();
    Some(prefix.join("opt").join(name).join(below))
}

/// Returns the kind of temporary folder that `path` is in, or `None` if the program is expected to stay there.
pub(super) fn temporary_place(path: &Path) -> Option<&'static str> {
    let below_target = path
        .components()
        .skip_while(|part| part.as_os_str() != "target");
    let is_profile = |part: Component<'_>| {
        let part = part.as_os_str();
        part == "debug" || part == "release"
    };
    let built = below_target.skip(1).any(is_profile);
    let temporary = [
        "/tmp",
        "/var/tmp",
        "/private/tmp",
        "/var/folders",
        "/private/var/folders",
    ];
    match () {
        () if built => Some("a build folder, which the next build or clean changes"),
        () if path.starts_with("/nix/store") => Some("a path that the next upgrade replaces"),
        () if temporary.iter().any(|folder| path.starts_with(folder)) => {
            Some("a folder for temporary files")
        }
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_stays_valid_after_an_upgrade() {
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
            // Upgraded while it runs: the kernel names the removed file.
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
            // A program may really have this name.
            (
                "/a/x (deleted)",
                &["/a/x (deleted)", "/a/x"],
                "/a/x (deleted)",
            ),
            // The path in `opt` does not exist, so it is not used.
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
    fn temporary_places_are_recognized() {
        for (path, is_temporary) in [
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
            assert_eq!(
                temporary_place(Path::new(path)).is_some(),
                is_temporary,
                "{path}"
            );
        }
    }
}
