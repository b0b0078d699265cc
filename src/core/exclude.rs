//! The files and folders below a root that a rule ignores: its folders are not scanned, its files are not temps.
//!
//! A glob without "/" is compared with each part of the path from the root to a file. A glob with "/" is compared with
//! the whole path, and with the path of each folder in it. Paths are compared as bytes, and the comparison is
//! case-sensitive. A glob that can never match is an error, because it looks as if it protected a file.

use std::borrow::Cow;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::glob::Glob;

/// The compiled globs and the folders that a rule ignores. The default is empty.
#[derive(Clone, Debug, Default)]
pub struct Exclude {
    globs: Vec<ExcludeGlob>,
    /// The path of the root, relative to the directory for which the globs were written.
    base: PathBuf,
    /// Globs that were written for the root itself, wherever the other globs were written.
    own_globs: Vec<ExcludeGlob>,
    /// The largest number of parts in the path from the root to a temp.
    max_depth: Option<usize>,
    /// Folders below the root that have other rules, as paths relative to the root.
    folders: Vec<PathBuf>,
}

#[derive(Clone, Debug)]
struct ExcludeGlob {
    text: String,
    compiled: Glob,
    /// It is compared with the whole path from the root, not with single parts of the path.
    is_path: bool,
}

/// The reason for which globs cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExcludeError {
    /// An empty glob.
    #[error("a glob to exclude is empty and would match nothing; leave it out")]
    Empty,
    /// A glob that cannot match any path from the root.
    #[error(
        "{glob:?} would exclude nothing: write a path relative to the directory of the rule, like \
         \"cache/*.tmp\", without a \"/\" at either end and without \".\", \"..\" or \"~\"{}",
        proposal(.instead)
    )]
    MatchesNothing {
        /// The glob, as given.
        glob: String,
        /// The glob that was probably meant, if that is clear.
        instead: Option<String>,
    },
    /// A glob that does not parse.
    #[error(
        "invalid glob {glob:?}: {why}; to match a special character literally, put a backslash before it"
    )]
    Bad {
        /// The glob, as given.
        glob: String,
        /// The error in it.
        why: String,
    },
}

/// Returns the end of the message that proposes another glob.
fn proposal(instead: &Option<String>) -> String {
    let proposal = |instead| format!("; did you mean {instead:?}?");
    instead.as_ref().map(proposal).unwrap_or_default()
}

impl Exclude {
    /// Compiles a rule's globs.
    pub fn new<G: AsRef<str>>(globs: &[G]) -> Result<Exclude, ExcludeError> {
        let globs = globs.iter().map(|glob| ExcludeGlob::new(glob.as_ref()));
        Ok(Exclude {
            globs: globs.collect::<Result<_, _>>()?,
            ..Exclude::default()
        })
    }

    /// Returns the same globs for a root at `base`, a path relative to the directory for which the globs were written.
    #[doc(hidden)]
    #[must_use]
    pub fn within(self, base: &Path) -> Exclude {
        Exclude {
            base: self.base.join(base),
            ..self
        }
    }

    /// Also excludes what `globs` match. They are relative to the root, whatever [`Exclude::within`] sets.
    pub fn add_own<G: AsRef<str>>(&mut self, globs: &[G]) -> Result<(), ExcludeError> {
        for glob in globs {
            self.own_globs.push(ExcludeGlob::new(glob.as_ref())?);
        }
        Ok(())
    }

    /// Also excludes what is more than `depth` levels below the root. What is directly in the root has the level 1.
    pub fn set_max_depth(&mut self, depth: usize) {
        self.max_depth = Some(depth);
    }

    /// Excludes the folder `below`, a path relative to the root, because it has another rule.
    #[doc(hidden)]
    pub fn add_folder(&mut self, below: PathBuf) {
        self.folders.push(below);
    }

    /// Reports whether the file or folder at `below`, a path relative to the root, is excluded by itself or by a folder
    /// that contains it. The root itself is never excluded.
    #[must_use]
    pub fn excludes(&self, below: &Path) -> bool {
        let is_too_deep = |depth: usize| below.components().count() > depth;
        self.max_depth.is_some_and(is_too_deep)
            || self.folders.iter().any(|folder| below.starts_with(folder))
            || self.glob(below).is_some()
    }

    /// Returns the glob that excludes `below`, as it was given.
    #[must_use]
    pub fn glob(&self, below: &Path) -> Option<&str> {
        let is_match =
            |glob: &&ExcludeGlob, path: &Path| path.ancestors().any(|path| glob.matches(path));
        let own = self.own_globs.iter().find(|glob| is_match(glob, below));
        if own.is_some() || self.globs.is_empty() {
            return own.map(|glob| glob.text.as_str());
        }
        let (base, is_root) = (&self.base, below.as_os_str().is_empty());
        let path = match base.as_os_str().is_empty() {
            true => Cow::Borrowed(below),
            // Joined with an empty path, the base would end in a slash.
            false if is_root => Cow::Borrowed(base.as_path()),
            false => Cow::Owned(base.join(below)),
        };
        let globs = self.globs.iter();
        let mut excluding = globs.filter(|glob| is_match(glob, &path));
        excluding.next().map(|glob| glob.text.as_str())
    }

    /// Returns the globs, as they were given.
    pub fn globs(&self) -> impl Iterator<Item = &str> {
        let all = self.globs.iter().chain(&self.own_globs);
        all.map(|glob| glob.text.as_str())
    }

    /// Reports whether nothing is excluded. This is the case in nearly every rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.globs.is_empty()
            && self.own_globs.is_empty()
            && self.max_depth.is_none()
            && self.folders.is_empty()
    }
}

impl fmt::Display for Exclude {
    /// Writes the globs, as they were given.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.globs().collect::<Vec<_>>().join(", "))
    }
}

impl ExcludeGlob {
    fn new(glob: &str) -> Result<ExcludeGlob, ExcludeError> {
        if glob.is_empty() {
            return Err(ExcludeError::Empty);
        }
        let is_path = glob.contains('/');
        if glob
            .split('/')
            .any(|part| matches!(part, "" | "." | ".." | "~"))
        {
            return Err(matches_nothing(glob));
        }
        // If everything in a folder is excluded, the folder is excluded too, so it need not be scanned.
        let folder = glob.strip_suffix("/**").unwrap_or(glob);
        let text = glob.to_owned();
        match Glob::new(folder) {
            Ok(compiled) => Ok(ExcludeGlob {
                text,
                compiled,
                is_path,
            }),
            Err(error) => Err(ExcludeError::Bad {
                glob: text,
                why: error.to_string(),
            }),
        }
    }

    fn matches(&self, path: &Path) -> bool {
        // The path of the root itself is empty: its own name is not one of the parts below it.
        let Some(name) = path.file_name() else {
            return false;
        };
        let compared = if self.is_path { path } else { Path::new(name) };
        self.compiled.matches(compared.as_os_str().as_bytes())
    }
}

fn matches_nothing(glob: &str) -> ExcludeError {
    // Another glob is proposed only if the path is relative and contains neither ".." nor "~".
    let parts = glob.split('/').filter(|part| !matches!(*part, "" | "."));
    let parts: Vec<&str> = parts.collect();
    let is_clear = !parts.is_empty()
        && !glob.starts_with('/')
        && !parts.iter().any(|part| matches!(*part, ".." | "~"));
    let instead = is_clear.then(|| parts.join("/"));
    ExcludeError::MatchesNothing {
        glob: glob.to_owned(),
        instead: instead.filter(|glob| ExcludeGlob::new(glob).is_ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    fn check(globs: &[&str], excluded: &[&str], included: &[&str]) {
        let exclude = Exclude::new(globs).expect("globs");
        for path in excluded {
            assert!(exclude.excludes(Path::new(path)), "{globs:?} {path}");
        }
        for path in included {
            assert!(!exclude.excludes(Path::new(path)), "{globs:?} {path}");
        }
    }

    #[test]
    fn own_globs_and_a_depth_are_relative_to_the_root() {
        let mut exclude = Exclude::new(&["deep/cache/*"]).expect("a glob");
        exclude.add_own(&["cache/*", "*.bak.tmp"]).expect("globs");
        exclude.set_max_depth(2);
        let exclude = exclude.within(Path::new("deep"));
        for (below, excluded) in [
            ("cache/a.tmp", true),
            ("a.bak.tmp", true),
            ("x/a.bak.tmp", true),
            ("a.tmp", false),
            ("x/a.tmp", false),
            ("x/y/a.tmp", true),
            ("x/cache", false),
        ] {
            assert_eq!(exclude.excludes(Path::new(below)), excluded, "{below}");
        }
        assert!(!exclude.is_empty());
        assert!(Exclude::default().add_own(&["/x"]).is_err());
    }

    #[test]
    fn a_glob_without_a_slash_matches_any_part() {
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
    fn a_glob_with_a_slash_matches_the_path_from_the_root() {
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
        // The folder is excluded with everything in it, so it need not be scanned.
        check(&["a/**"], &["a", "a/b", "a/b/c"], &["b/a", "ab"]);
        check(&["{a,b}/c"], &["a/c", "b/c"], &["c/c"]);
    }

    #[test]
    fn paths_need_not_be_utf_8() {
        let exclude = Exclude::new(&["ca*"]).expect("a glob");
        let is_excluded = |bytes| exclude.excludes(Path::new(OsStr::from_bytes(bytes)));
        assert!(is_excluded(b"ca\xff/a.tmp"));
        assert!(!is_excluded(b"\xffca/a.tmp"));
    }

    #[test]
    fn a_glob_that_can_never_match_is_refused() {
        let error_for = |glob: &str, instead: Option<&str>| ExcludeError::MatchesNothing {
            glob: glob.to_owned(),
            instead: instead.map(str::to_owned),
        };
        for (glob, error) in [
            ("", ExcludeError::Empty),
            ("/srv/app/cache", error_for("/srv/app/cache", None)),
            ("/", error_for("/", None)),
            ("cache/", error_for("cache/", Some("cache"))),
            ("./a//b", error_for("./a//b", Some("a/b"))),
            // A proposal would be refused too, so there is none.
            ("./{a//b", error_for("./{a//b", None)),
            ("../a", error_for("../a", None)),
            ("~/a", error_for("~/a", None)),
            (".", error_for(".", None)),
        ] {
            assert_eq!(Exclude::new(&[glob]).err(), Some(error), "{glob:?}");
        }
        for glob in ["[a", "a/{b", r"a\"] {
            let error = Exclude::new(&["b", glob]).err();
            assert!(matches!(error, Some(ExcludeError::Bad { glob: bad, .. }) if bad == glob));
        }
    }

    #[test]
    fn globs_may_be_written_for_a_directory_above_the_root() {
        let exclude = Exclude::new(&["a/b/*.tmp", "cache"]).expect("globs");
        let exclude = exclude.within(Path::new("a"));
        for (path, glob) in [
            ("b/x.tmp", Some("a/b/*.tmp")),
            ("cache/x.tmp", Some("cache")),
            ("x.tmp", None),
            ("a/b/x.tmp", None),
        ] {
            assert_eq!(exclude.glob(Path::new(path)), glob, "{path}");
            assert_eq!(exclude.excludes(Path::new(path)), glob.is_some(), "{path}");
        }
        for (glob, base) in [
            ("cache", "cache"),
            ("a/cache", "a/cache"),
            ("a/cache/**", "a/cache"),
            ("a/*", "a/cache/b"),
        ] {
            let within = Exclude::new(&[glob]).expect("a glob");
            let within = within.within(Path::new(base));
            assert_eq!(within.glob(Path::new("x.tmp")), Some(glob));
            assert_eq!(within.glob(Path::new("")), Some(glob));
        }
    }

    #[test]
    fn a_folder_with_another_rule_is_excluded() {
        let mut exclude = Exclude::default();
        exclude.add_folder("a/b".into());
        assert!(!exclude.is_empty());
        for (path, want) in [
            ("a/b", true),
            ("a/b/c.tmp", true),
            ("a/bc", false),
            ("a", false),
        ] {
            assert_eq!(exclude.excludes(Path::new(path)), want, "{path}");
            assert_eq!(exclude.glob(Path::new(path)), None, "no glob excludes it");
        }
    }

    #[test]
    fn globs_are_shown_as_given() {
        let exclude = Exclude::new(&["cache", "a/**"]).expect("globs");
        assert_eq!(exclude.to_string(), "cache, a/**");
        assert_eq!(Exclude::default().to_string(), "");
        assert!(Exclude::default().is_empty() && !exclude.is_empty());
    }

    #[test]
    fn a_clear_mistake_gets_a_proposal() {
        let error = |glob| Exclude::new(&[glob]).expect_err("a wrong glob").to_string();
        assert!(error("cache/").ends_with(r#"; did you mean "cache"?"#));
        assert!(error("/srv").ends_with(r#"without ".", ".." or "~""#));
    }
}
