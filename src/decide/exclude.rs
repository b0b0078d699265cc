//! What a rule leaves alone below its root: folders that are not walked, files that are no temps.
//!
//! A glob without "/" is compared with each part of the way from the root to a file, one with "/"
//! with the whole way, or the way to a folder on it. As bytes, and case counts. What could never
//! match anything is an error: whoever wrote it believes that something is safe.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use globset::{Candidate, GlobBuilder, GlobSet};

use super::temp_name::glob_error_text;

/// What a rule leaves alone, compiled. By default nothing.
#[derive(Clone, Debug, Default)]
pub struct Exclude {
    globs: Vec<Excluding>,
    /// The way from the directory that the globs are meant for to the root.
    base: PathBuf,
    /// Folders below the root, by their ways from it, that are left to other rules.
    folders: Vec<PathBuf>,
}

#[derive(Clone, Debug)]
struct Excluding {
    text: String,
    set: GlobSet,
    /// It is compared with the way from the root, not with one part of it.
    way: bool,
}

/// Why globs cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExcludeError {
    /// An empty glob.
    #[error("a glob to exclude is empty and would match nothing; leave it out")]
    Empty,
    /// A glob that no way from the root can match.
    #[error(
        "{glob:?} would exclude nothing: what is compared is the way from the directory of the \
         rule, as in \"cache/*.tmp\", without a \"/\" at either end and without \".\", \"..\" or \"~\"{}",
        meant(.instead)
    )]
    MatchesNothing {
        /// As given.
        glob: String,
        /// What was probably meant, where that can be told.
        instead: Option<String>,
    },
    /// A glob that does not parse.
    #[error(
        "the glob {glob:?} cannot be read: {why}; \
         put a backslash before a special character that stands for itself"
    )]
    Bad {
        /// As given.
        glob: String,
        /// What is wrong with it.
        why: String,
    },
}

fn meant(instead: &Option<String>) -> String {
    let meant = |instead| format!("; did you mean {instead:?}?");
    instead.as_ref().map(meant).unwrap_or_default()
}

impl Exclude {
    /// Compiles a rule's globs.
    pub fn new<G: AsRef<str>>(globs: &[G]) -> Result<Exclude, ExcludeError> {
        let globs = globs.iter().map(|glob| Excluding::new(glob.as_ref()));
        Ok(Exclude {
            globs: globs.collect::<Result<_, _>>()?,
            ..Exclude::default()
        })
    }

    /// Returns the same for a root that lies at `base` below the directory that the globs are meant for.
    #[must_use]
    pub fn within(self, base: &Path) -> Exclude {
        Exclude {
            base: self.base.join(base),
            ..self
        }
    }

    /// Leaves the folder `below`, the way to it from the root, to another rule.
    pub fn add_folder(&mut self, below: PathBuf) {
        self.folders.push(below);
    }

    /// Whether the file or folder at `below`, the way to it from the root, is excluded by itself or
    /// by a folder that it is in. The root itself never is.
    #[must_use]
    pub fn excludes(&self, below: &Path) -> bool {
        self.folders.iter().any(|folder| below.starts_with(folder)) || self.glob(below).is_some()
    }

    /// Returns the glob that excludes `below`, as it was given.
    #[must_use]
    pub fn glob(&self, below: &Path) -> Option<&str> {
        if self.globs.is_empty() {
            return None;
        }
        let way = match self.base.as_os_str().is_empty() {
            true => Cow::Borrowed(below),
            false => Cow::Owned(self.base.join(below)),
        };
        let globs = self.globs.iter();
        let mut excluding = globs.filter(|glob| way.ancestors().any(|way| glob.matches(way)));
        excluding.next().map(|glob| glob.text.as_str())
    }

    /// The globs, as they were given.
    pub fn globs(&self) -> impl Iterator<Item = &str> {
        self.globs.iter().map(|glob| glob.text.as_str())
    }

    /// Whether nothing is excluded, as in nearly every rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.globs.is_empty() && self.folders.is_empty()
    }
}

impl fmt::Display for Exclude {
    /// The globs, as they were given.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, glob) in self.globs.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}", glob.text)?;
        }
        Ok(())
    }
}

impl Excluding {
    fn new(glob: &str) -> Result<Excluding, ExcludeError> {
        if glob.is_empty() {
            return Err(ExcludeError::Empty);
        }
        let way = glob.contains('/');
        if glob
            .split('/')
            .any(|part| matches!(part, "" | "." | ".." | "~"))
        {
            return Err(no_way(glob));
        }
        // All that is in a folder is the folder: there is nothing to walk it for.
        let folder = glob.strip_suffix("/**").unwrap_or(glob);
        // A set, because a lone matcher panics on a pattern that is too large.
        let set = GlobBuilder::new(folder)
            .literal_separator(true)
            .build()
            .and_then(|parsed| GlobSet::new([parsed]));
        let set = set.map_err(|error| ExcludeError::Bad {
            glob: glob.to_owned(),
            why: glob_error_text(&error),
        })?;
        let text = glob.to_owned();
        Ok(Excluding { text, set, way })
    }

    fn matches(&self, way: &Path) -> bool {
        // The root has no name: its own is none of the parts below it.
        let Some(name) = way.file_name() else {
            return false;
        };
        let compared = if self.way { way } else { Path::new(name) };
        self.set.is_match_candidate(&Candidate::new(compared))
    }
}

fn no_way(glob: &str) -> ExcludeError {
    // Without ".." it can be told what was meant. An absolute way is somewhere else.
    let parts = glob.split('/').filter(|part| !matches!(*part, "" | "."));
    let parts: Vec<&str> = parts.collect();
    let told = !parts.is_empty()
        && !glob.starts_with('/')
        && !parts.iter().any(|part| matches!(*part, ".." | "~"));
    let instead = told.then(|| parts.join("/"));
    ExcludeError::MatchesNothing {
        glob: glob.to_owned(),
        instead: instead.filter(|glob| Excluding::new(glob).is_ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    fn check(globs: &[&str], excluded: &[&str], taken: &[&str]) {
        let exclude = Exclude::new(globs).expect("globs");
        for way in excluded {
            assert!(exclude.excludes(Path::new(way)), "{globs:?} {way}");
        }
        for way in taken {
            assert!(!exclude.excludes(Path::new(way)), "{globs:?} {way}");
        }
    }

    #[test]
    fn a_glob_without_a_slash_is_any_part() {
        check(&[], &[], &["", "a", "a/b"]);
        check(
            &["cache", "*.keep.tmp"],
            &[
                "cache",
                "cache/a.tmp",
                "a/cache/b/c.tmp",
                "a/x.keep.tmp",
                "x.keep.tmp/y",
            ],
            &["", "a.tmp", "Cache/a.tmp", "caches/a.tmp", "a/keep.tmp"],
        );
        check(&["*"], &["a", "a/b", ".a"], &[""]);
        check(&["**"], &["a", "a/b"], &[""]);
        check(&[r"\*"], &["*", "*/b"], &["a"]);
        check(&["!a"], &["!a"], &["a", "b"]);
    }

    #[test]
    fn a_glob_with_a_slash_is_the_way_from_the_root() {
        check(
            &["a/cache"],
            &["a/cache", "a/cache/b/c.tmp"],
            &["a", "a/b", "cache", "b/a/cache", "a/x/cache"],
        );
        check(
            &["a/*.tmp"],
            &["a/b.tmp"],
            &["a/b/c.tmp", "b.tmp", "c/a/b.tmp"],
        );
        check(&["**/a/b"], &["a/b", "c/a/b", "c/a/b/d"], &["b", "a/c/b"]);
        check(&["a/**/b"], &["a/b", "a/x/y/b"], &["a/c", "b"]);
        check(&["*/b"], &["a/b", "a/b/c"], &["b", "a/c/b"]);
        // The folder with all that is in it, so that it need not be walked.
        check(&["a/**"], &["a", "a/b", "a/b/c"], &["b/a", "ab"]);
        check(&["{a,b}/c"], &["a/c", "b/c"], &["c/c"]);
    }

    #[test]
    fn ways_that_are_not_utf_8() {
        let exclude = Exclude::new(&["ca*"]).expect("a glob");
        let way = |bytes| exclude.excludes(Path::new(OsStr::from_bytes(bytes)));
        assert!(way(b"ca\xff/a.tmp"));
        assert!(!way(b"\xffca/a.tmp"));
    }

    #[test]
    fn what_could_never_match_is_refused() {
        let no_way = |glob: &str, instead: Option<&str>| ExcludeError::MatchesNothing {
            glob: glob.to_owned(),
            instead: instead.map(str::to_owned),
        };
        for (glob, error) in [
            ("", ExcludeError::Empty),
            ("/srv/app/cache", no_way("/srv/app/cache", None)),
            ("/", no_way("/", None)),
            ("cache/", no_way("cache/", Some("cache"))),
            ("./a//b", no_way("./a//b", Some("a/b"))),
            // Nothing is proposed that would be refused in turn.
            ("./{a//b", no_way("./{a//b", None)),
            ("../a", no_way("../a", None)),
            ("~/a", no_way("~/a", None)),
            (".", no_way(".", None)),
        ] {
            assert_eq!(Exclude::new(&[glob]).err(), Some(error), "{glob:?}");
        }
        for glob in ["[a", "a/{b", r"a\"] {
            let error = Exclude::new(&["b", glob]).err();
            assert!(matches!(error, Some(ExcludeError::Bad { glob: bad, .. }) if bad == glob));
        }
    }

    #[test]
    fn a_root_below_the_directory_of_the_globs() {
        let exclude = Exclude::new(&["a/b/*.tmp", "cache"]).expect("globs");
        let exclude = exclude.within(Path::new("a"));
        for (way, glob) in [
            ("b/x.tmp", Some("a/b/*.tmp")),
            ("cache/x.tmp", Some("cache")),
            ("x.tmp", None),
            ("a/b/x.tmp", None),
        ] {
            assert_eq!(exclude.glob(Path::new(way)), glob, "{way}");
            assert_eq!(exclude.excludes(Path::new(way)), glob.is_some(), "{way}");
        }
        let within = Exclude::new(&["cache"]).expect("a glob");
        let within = within.within(Path::new("cache"));
        assert_eq!(within.glob(Path::new("x.tmp")), Some("cache"));
        assert_eq!(within.glob(Path::new("")), Some("cache"));
    }

    #[test]
    fn a_folder_that_is_left_to_another_rule() {
        let mut exclude = Exclude::default();
        exclude.add_folder("a/b".into());
        assert!(!exclude.is_empty());
        for (way, want) in [
            ("a/b", true),
            ("a/b/c.tmp", true),
            ("a/bc", false),
            ("a", false),
        ] {
            assert_eq!(exclude.excludes(Path::new(way)), want, "{way}");
            assert_eq!(exclude.glob(Path::new(way)), None, "no glob says so");
        }
    }

    #[test]
    fn it_is_shown_as_given() {
        let exclude = Exclude::new(&["cache", "a/**"]).expect("globs");
        assert_eq!(exclude.to_string(), "cache, a/**");
        assert_eq!(Exclude::default().to_string(), "");
        assert!(Exclude::default().is_empty() && !exclude.is_empty());
    }

    #[test]
    fn what_was_meant_is_said_where_that_can_be_told() {
        let says = |glob| Exclude::new(&[glob]).expect_err("a mistake").to_string();
        assert!(says("cache/").ends_with(r#"; did you mean "cache"?"#));
        assert!(says("/srv").ends_with(r#"without ".", ".." or "~""#));
    }
}
