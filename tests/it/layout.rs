//! Checks which files of the source import which: there is no import cycle, and imports run downwards.
//!
//! The imports are the `use` declarations, and the paths in the code that begin with `crate` or `super`. Tests and
//! comments do not count. A module and the modules inside it count as one unit, so imports between them are ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex_lite::Regex;

/// The path of a module below the crate. `lib.rs` and `main.rs` are the empty path.
type Module = Vec<String>;

/// The source files of one crate.
struct Source {
    /// The files of each module, relative to the folder. A module that differs between the systems has two.
    files: BTreeMap<Module, BTreeSet<PathBuf>>,
    /// The absolute paths that each file imports.
    imports: BTreeMap<PathBuf, BTreeSet<Module>>,
}

impl Source {
    fn read(src: &Path) -> Source {
        let mut source = Source {
            files: BTreeMap::new(),
            imports: BTreeMap::new(),
        };
        source.add_folder(src, Path::new(""));
        source
    }

    fn add_folder(&mut self, src: &Path, below: &Path) {
        for entry in fs::read_dir(src.join(below)).unwrap() {
            let file = below.join(entry.unwrap().file_name());
            if src.join(&file).is_dir() {
                self.add_folder(src, &file);
            } else if file.extension().is_some_and(|end| end == "rs") && !file.ends_with("tests.rs")
            {
                let text = code(&fs::read_to_string(src.join(&file)).unwrap());
                self.add_file(file, &text);
            }
        }
    }

    fn add_file(&mut self, file: PathBuf, text: &str) {
        let module = module_of(&file);
        // Sibling files such as linux.rs and macos.rs are one module, with the name that the file above gives them.
        let siblings =
            Regex::new(r#"((?:#\[cfg_attr\([^\n]*\)\]\s+)+)(?:pub(?:\(\w+\))? )?mod (\w+)$"#);
        let siblings = siblings.unwrap();
        let sibling = Regex::new(r#"path = "([^"]+)""#).unwrap();
        // A quote cannot be part of a declaration: the word is in a text.
        let used = Regex::new(r#"(?m)^\s*(?:pub(?:\([^)]*\))? )?use ([^;"]+)$"#).unwrap();
        let in_code = Regex::new(r"\b(?:crate|super)(?:::\w+)+").unwrap();
        let mut paths = Vec::new();
        // These regular expressions are slow, so each is tried only where it may match.
        for part in text.split(';') {
            if part.contains("cfg_attr")
                && let Some(found) = siblings.captures(part)
            {
                let named = [&module[..], &[found[2].to_owned()]].concat();
                let folder = file.parent().unwrap();
                let files = sibling
                    .captures_iter(&found[1])
                    .map(|at| folder.join(&at[1]));
                self.files.entry(named).or_default().extend(files);
            }
            if part.contains("use ")
                && let Some(found) = used.captures(part)
            {
                paths.extend(used_paths(&found[1]));
            }
        }
        let lines = text
            .lines()
            .filter(|line| line.contains("crate::") || line.contains("super::"));
        for line in lines {
            paths.extend(in_code.find_iter(line).map(|at| at.as_str().to_owned()));
        }
        let imports = paths.iter().filter_map(|path| absolute(&module, path));
        self.imports.insert(file.clone(), imports.collect());
        self.files.entry(module).or_default().insert(file);
    }

    /// Returns the module that contains the item at `path`.
    fn module_with(&self, path: &[String]) -> &Module {
        let ends = (0..=path.len()).rev();
        let mut known = ends.filter_map(|end| self.files.get_key_value(&path[..end]));
        known.next().unwrap().0
    }

    /// Returns the files that `file` imports, without those of modules around it or inside it.
    fn imported_files(&self, file: &Path) -> BTreeSet<PathBuf> {
        let module = module_of(file);
        let mut files = BTreeSet::new();
        for path in &self.imports[file] {
            let target = self.module_with(path);
            if !module.starts_with(target) && !target.starts_with(&module) {
                files.extend(self.files[target].iter().cloned());
            }
        }
        files.remove(file);
        files
    }

    /// Returns the imports that are part of a cycle, as `file -> file`.
    fn cycles(&self) -> Vec<String> {
        let edges: BTreeMap<&PathBuf, BTreeSet<PathBuf>> = self
            .imports
            .keys()
            .map(|file| (file, self.imported_files(file)))
            .collect();
        let reaches = |from: &PathBuf, to: &PathBuf| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
            while let Some(file) = open.pop() {
                if file == to {
                    return true;
                }
                if seen.insert(file) {
                    open.extend(&edges[file]);
                }
            }
            false
        };
        let mut cycles = Vec::new();
        for (from, targets) in &edges {
            let back = targets.iter().filter(|to| reaches(to, from));
            cycles.extend(back.map(|to| format!("{} -> {}", from.display(), to.display())));
        }
        cycles
    }

    /// Returns the imports of items that the file of `module` itself defines, as `file: path`.
    fn imports_of_items_in(&self, module: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        for (file, paths) in &self.imports {
            let items = paths
                .iter()
                .filter(|path| self.module_with(path) == module && path.len() > module.len());
            found.extend(items.map(|path| format!("{}: {}", file.display(), path.join("::"))));
        }
        found
    }
}

/// Returns the module of a file.
fn module_of(file: &Path) -> Module {
    let stem = file.with_extension("");
    let mut parts: Module = stem
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .collect();
    parts.pop_if(|last| ["mod", "lib", "main"].contains(&last.as_str()));
    parts
}

/// Returns the text without comments and without items under `#[cfg(test)]`. The text is formatted by rustfmt, so the
/// end of an item has the same indentation as its beginning.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().map(without_comment);
    while let Some(line) = lines.next() {
        if !line.trim_start().starts_with("#[cfg(test)]")
            && !line.trim_start().starts_with("#[cfg(all(test")
        {
            code += line;
            code.push('\n');
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let is_attribute = |line: &&str| line.trim_start().starts_with("#[");
        let first = lines
            .by_ref()
            .find(|line| !is_attribute(line))
            .unwrap_or("");
        if !first.ends_with(';') && !first.ends_with('}') {
            let is_end = |line: &&str| {
                let rest = line.strip_prefix(indent);
                rest.is_some_and(|rest| ["}", "};", ");", "]);"].contains(&rest))
            };
            lines.by_ref().find(is_end);
        }
    }
    code
}

/// Returns the line without a comment at its end.
fn without_comment(line: &str) -> &str {
    match line.find("//") {
        Some(start) if line[..start].trim_end().len() < start || start == 0 => &line[..start],
        _ => line,
    }
}

/// Returns the paths of a `use` declaration, without braces and new names.
fn used_paths(tree: &str) -> Vec<String> {
    let Some((head, rest)) = tree.split_once('{') else {
        let path = tree.split_whitespace().next();
        return path.map(str::to_owned).into_iter().collect();
    };
    let inner = &rest[..rest.rfind('}').unwrap()];
    let (mut depth, mut part, mut paths) = (0, String::new(), Vec::new());
    for c in inner.chars().chain([',']) {
        match c {
            ',' if depth == 0 => {
                let ends = used_paths(&part).into_iter();
                paths.extend(ends.map(|end| head.trim_start().to_owned() + &end));
                part.clear();
                continue;
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        part.push(c);
    }
    paths
}

/// Returns the absolute path for a path in `module`, or `None` if the path does not begin in this crate.
fn absolute(module: &[String], path: &str) -> Option<Module> {
    let mut parts = path.split("::").peekable();
    let mut base = match *parts.peek()? {
        "crate" => Vec::new(),
        "self" | "super" => module.to_vec(),
        _ => return None,
    };
    while let Some(first) = parts.next_if(|part| ["crate", "self", "super"].contains(part)) {
        if first == "super" {
            base.pop();
        }
    }
    base.extend(parts.map(str::to_owned));
    Some(base)
}

fn source() -> Source {
    Source::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

const NONE: [&str; 0] = [];

#[test]
fn there_is_no_import_cycle() {
    let source = source();
    assert!(source.imports.len() > 100, "{}", source.imports.len());
    assert_eq!(source.cycles(), NONE, "these imports are part of a cycle");
}

/// A command that imported from the list of commands would be in a cycle that the other test ignores.
#[test]
fn no_command_imports_from_the_list_of_commands() {
    assert_eq!(source().imports_of_items_in(&["cli"]), NONE);
}

/// The folders of the library, from the lowest layer to the highest. A file imports from its own layer and from lower
/// ones.
const LAYERS: [&[&str]; 7] = [
    &["core"],
    &["sys"],
    &["fs"],
    &["watch", "index", "store"],
    &["evidence", "reap"],
    &["engine"],
    &["daemon"],
];

/// Returns the layer of the item at `path`, or `None` for an item of the crate's root.
fn layer(path: &[String]) -> Option<usize> {
    let folder = path.first()?;
    let number = |names: &&[&str]| names.contains(&folder.as_str());
    LAYERS.iter().position(number)
}

#[test]
fn imports_run_downwards() {
    let mut checked = [0; LAYERS.len()];
    for (file, paths) in &source().imports {
        let module = module_of(file);
        let Some(own) = layer(&module) else {
            // The program may import everything, and the crate's root lists all folders.
            assert!(
                module.is_empty() || ["cli", "rule"].contains(&module[0].as_str()),
                "{} is in no layer",
                file.display()
            );
            continue;
        };
        checked[own] += 1;
        for path in paths {
            let imported = layer(path).unwrap_or(LAYERS.len());
            assert!(
                imported <= own,
                "{} imports {}, which is in a higher layer",
                file.display(),
                path.join("::")
            );
        }
    }
    assert!(checked.iter().all(|&files| files > 0), "{checked:?}");
}

/// Checks that the tests above see each form of an import.
#[test]
fn cycles_are_found() {
    /// The files, and whether `a.rs` and another file import each other.
    type Case<'a> = (&'a [(&'a str, &'a str)], bool);
    let cases: &[Case<'_>] = &[
        (
            &[("a.rs", "use crate::b;\n"), ("b.rs", "use super::a::A;\n")],
            true,
        ),
        (
            &[
                ("a.rs", "use crate::{b::{B, X as Y}, z};\n"),
                ("b.rs", "fn f() { crate::a::f() }\n"),
            ],
            true,
        ),
        (
            &[
                ("a.rs", "use super::b::B;\n"),
                ("b.rs", "pub use crate::c::C;\n"),
                ("c.rs", "use crate::a;\n"),
            ],
            true,
        ),
        (
            &[
                ("a.rs", "use super::b::system::N;\n"),
                (
                    "b.rs",
                    "#[cfg_attr(target_os = \"linux\", path = \"b/linux.rs\")]\nmod system;\n",
                ),
                ("b/linux.rs", "use crate::a::A;\n"),
            ],
            true,
        ),
        (
            &[
                ("a.rs", "use crate::b;\n"),
                ("b.rs", "// use crate::a;\nuse std::a;\n"),
            ],
            false,
        ),
        (
            &[
                ("a.rs", "use crate::b;\n"),
                ("b.rs", "#[cfg(test)]\nmod tests {\n    use crate::a;\n}\n"),
            ],
            false,
        ),
        (
            &[
                ("a.rs", "mod b;\nuse b::B;\n"),
                ("a/b.rs", "use super::A;\n"),
            ],
            false,
        ),
    ];
    for (files, is_cycle) in cases {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("lib.rs"), "").unwrap();
        for (file, text) in *files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let cycles = Source::read(dir.path()).cycles();
        assert_eq!(!cycles.is_empty(), *is_cycle, "{files:?}: {cycles:?}");
    }
}
