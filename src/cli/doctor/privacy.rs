//! Judges the privacy protection of macOS ("TCC"): a program may open some folders only after the user has allowed it.
//! In a service, which cannot ask the user, the call waits or fails.

use std::path::Path;

use super::check::Check;

/// The protected folders below the home directory, and the names of their panes in the settings.
const PROTECTED: &[(&str, &str)] = &[
    ("Documents", "Files & Folders"),
    ("Desktop", "Files & Folders"),
    ("Downloads", "Files & Folders"),
    ("Library/Mobile Documents", "Full Disk Access"),
    ("Library/CloudStorage", "Full Disk Access"),
    ("Library/Containers", "Full Disk Access"),
    ("Library/Group Containers", "Full Disk Access"),
];

/// Judges `root` before it is opened, by its path alone. Returns `None` if it is not a protected folder.
pub(super) fn judge(root: &Path, home: Option<&Path>) -> Option<Check> {
    let below_home = home.and_then(|home| root.strip_prefix(home).ok());
    let protected = below_home.and_then(|below| {
        let mut known = PROTECTED.iter();
        known.find(|(folder, _)| below.starts_with(folder) || Path::new(folder).starts_with(below))
    });
    let (what, pane) = match protected {
        Some((folder, pane)) => (format!("~/{folder}"), *pane),
        None if root.starts_with("/Volumes") => ("/Volumes".to_owned(), "Files & Folders"),
        None => return None,
    };
    Some(Check::warning(
        "privacy",
        format!(
            "macOS protects {what}: orphand may work there in a terminal, which has your permission, but not as a \
             service, which has none until you grant it"
        ),
        format!(
            "System Settings > Privacy & Security > {pane}: allow orphand\n\
             open 'x-apple.systempreferences:com.apple.preference.security?Privacy'\n\
             repeat this after every upgrade, unless the program is signed with a certificate"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protected_folders_are_a_warning() {
        let home = Path::new("/Users/ann");
        for (root, want) in [
            ("/Users/ann/.openclaw/agents", None),
            ("/Users/ann/Documents", Some("~/Documents")),
            ("/Users/ann/Documents/app", Some("~/Documents")),
            ("/Users/ann/Documents2", None),
            ("/Users/ann/Desktop/x", Some("~/Desktop")),
            ("/Users/ann/Downloads", Some("~/Downloads")),
            (
                "/Users/ann/Library/Mobile Documents/x",
                Some("~/Library/Mobile"),
            ),
            (
                "/Users/ann/Library/Containers/com.x/Data",
                Some("~/Library/Containers"),
            ),
            (
                "/Users/ann/Library/Group Containers/x",
                Some("~/Library/Group"),
            ),
            ("/Users/ann/Library/Caches/x", None),
            // Protected folders are below it.
            ("/Users/ann/Library", Some("~/Library/Mobile")),
            ("/Volumes/stick/x", Some("/Volumes")),
            ("/Users/bob/Documents", None),
            ("/srv/app", None),
        ] {
            let check = judge(Path::new(root), Some(home));
            let what = check.as_ref().map(|check| check.what.as_str());
            match want {
                None => assert_eq!(what, None, "{root}"),
                Some(want) => assert!(
                    what.is_some_and(|what| what.contains(want)),
                    "{root}: {what:?}"
                ),
            }
        }
        assert!(judge(Path::new("/Volumes/x"), None).is_some());
    }
}
