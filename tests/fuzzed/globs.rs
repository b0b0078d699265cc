//! Globs, of names and of what is left alone: some, a line each, then an empty line, then the name
//! that they are asked about. Whoever excluded a file believes that it is safe.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use orphand::core::exclude::{Exclude, ExcludeError};
use orphand::core::temp_name::{NameError, Names};

const NONE: [&str; 0] = [];

/// What stands for more than itself; without it a glob is a name.
const SPECIAL: &[char] = &['*', '?', '[', ']', '{', '}', '\\', ',', '/'];

pub(crate) fn check(data: &[u8]) {
    let empty_line = data.windows(2).position(|pair| pair == b"\n\n");
    let Some((globs, name)) = empty_line.map(|at| (&data[..at], &data[at + 2..])) else {
        return;
    };
    let Ok(globs) = std::str::from_utf8(globs) else {
        return;
    };
    let globs: Vec<&str> = globs.split('\n').collect();
    names(&globs, name);
    exclude(&globs, name);
}

fn names(globs: &[&str], name: &[u8]) {
    // Of a way the last part, as a watch hears it.
    let name = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let all = Names::new(globs, &NONE);
    let each: Result<Vec<Names>, NameError> = globs
        .iter()
        .map(|glob| Names::new(&[glob], &NONE))
        .collect();
    match (&all, &each) {
        (Ok(all), Ok(each)) => {
            // Several globs take what one of them takes.
            let taken = all.matches(name);
            assert_eq!(taken, each.iter().any(|names| names.matches(name)));
            assert!(!taken || !name.starts_with(b".orphand"));
            // What a narrower glob takes, the broader one takes too, and reserves the file itself.
            for one in all.narrower() {
                let narrower =
                    Names::new(&[&one.instead], &NONE).expect("what is proposed is right");
                assert!(taken || !narrower.matches(name), "{one}");
                assert!(
                    all.matches(one.file.as_bytes()) || one.file.starts_with(".orphand"),
                    "{one}"
                );
            }
            assert!(
                taken
                    || all
                        .targets_among([OsStr::from_bytes(name)].into_iter())
                        .is_empty()
            );
            for (glob, names) in globs.iter().zip(each) {
                if !glob.contains(SPECIAL) {
                    let itself = name == glob.as_bytes() && !name.starts_with(b".orphand");
                    assert_eq!(names.matches(name), itself, "{glob:?}");
                }
            }
        }
        (Err(all), Err(each)) => assert_eq!(all, each),
        _ => panic!("together {:?}, one by one {:?}", all.err(), each.err()),
    }
    if let Err(error) = all {
        one_line(&error.to_string());
        if let NameError::PathGlob { instead, .. } = error {
            Names::new(&[instead], &NONE).expect("what is proposed is right");
        }
    }
    // Whatever a name is, there is a glob that takes just it.
    if let Some(text) = std::str::from_utf8(name)
        .ok()
        .filter(|text| !text.is_empty())
    {
        let ours = name.starts_with(b".orphand");
        let names = Names::allowing_broad(&[escaped(text)], &NONE).expect("a name as a glob");
        assert_eq!(names.matches(name), !ours, "{text:?}");
        // So it is not reserved either.
        assert_eq!(names.reserved(name), None, "{text:?}");
    }
}

/// As the messages say: a backslash before a special character.
fn escaped(name: &str) -> String {
    let special = |char| SPECIAL.contains(&char).then_some('\\');
    name.chars()
        .flat_map(|char| special(char).into_iter().chain([char]))
        .collect()
}

fn exclude(globs: &[&str], way: &[u8]) {
    // As roots hand it over: names with one "/" between.
    let parts = Path::new(OsStr::from_bytes(way)).components();
    let way: PathBuf = parts
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect();
    let all = Exclude::new(globs);
    let each: Result<Vec<Exclude>, ExcludeError> =
        globs.iter().map(|glob| Exclude::new(&[glob])).collect();
    match (&all, &each) {
        (Ok(all), Ok(each)) => {
            let excluded = all.excludes(&way);
            assert_eq!(excluded, each.iter().any(|glob| glob.excludes(&way)));
            assert!(!all.excludes(Path::new("")), "the root itself");
            assert!(
                !excluded || all.excludes(&way.join("below/it")),
                "what is in it"
            );
            for (glob, exclude) in globs.iter().zip(each) {
                if !glob.contains(SPECIAL) {
                    let named = way.iter().any(|part| part == *glob);
                    assert_eq!(exclude.excludes(&way), named, "{glob:?}");
                }
            }
        }
        (Err(all), Err(each)) => assert_eq!(all, each),
        _ => panic!("together {:?}, one by one {:?}", all.err(), each.err()),
    }
    if let Err(error) = all {
        one_line(&error.to_string());
        if let ExcludeError::MatchesNothing {
            instead: Some(instead),
            ..
        } = error
        {
            Exclude::new(&[instead]).expect("what is proposed is right");
        }
    }
}

/// A message is read at a terminal, whatever is in the glob.
fn one_line(message: &str) {
    assert!(!message.contains(char::is_control), "{message:?}");
}
