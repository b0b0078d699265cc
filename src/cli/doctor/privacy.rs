//! macOS's privacy protection ("TCC"): folders that a program may open only once a person has
//! allowed it. Where nobody can be asked, in a service, the call waits or fails.

use std::path::Path;

use super::check::Check;

/// Below the home directory, and what they are called in the settings.
const PROTECTED: &[(&str, &str)] = &[
    ("Documents", "Files & Folders"),
    ("Desktop", "Files & Folders"),
    ("Downloads", "Files & Folders"),
    ("Library/Mobile Documents", "Full Disk Access"),
    ("Library/CloudStorage", "Full Disk Access"),
    ("Library/Containers", "Full Disk Access"),
    ("Library/Group Containers", "Full Disk Access"),
];

/// What is to be known of `root` before it is opened, if it is such a folder. Only its path is
/// looked at.
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
            "macOS protects {what}: orphand may work there by hand in a terminal, which has your \
             permission, and not as a service, which has none until you give it"
        ),
        format!(
            "System Settings > Privacy & Security > {pane}: allow orphand\n\
             open 'x-apple.systempreferences:com.apple.preference.security?Privacy'\n\
             again after every upgrade, unless the program is signed with a certificate"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_protected() {
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
            // They are below it.
            ("/Users/ann/Library", Some("~/Library/Mobile")),
            ("/Volumes/stick/x", Some("/Volumes")),
            ("/Users/bob/Documents", None),
            ("/srv/app", None),
        ] {
            let check = judge(Path::new(root), Some(home));
            let said = check.as_ref().map(|check| check.what.as_str());
            match want {
                None => assert_eq!(said, None, "{root}"),
                Some(want) => assert!(
                    said.is_some_and(|said| said.contains(want)),
                    "{root}: {said:?}"
                ),
            }
        }
        assert!(judge(Path::new("/Volumes/x"), None).is_some());
    }
}
