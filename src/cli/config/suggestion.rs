//! Proposals for misspelled words.

/// Returns the question whether the one of `known` that is similar to `word` was meant, or one of all if none is
/// similar. `known` are written as in the file; quotes and brackets around them are not compared.
pub(super) fn did_you_mean(word: &str, known: impl Iterator<Item = String>) -> String {
    let compared = |known: String| {
        let name = known.trim_matches(['"', '[', ']']);
        (strsim::levenshtein(word, name), name.len(), known)
    };
    let known: Vec<_> = known.map(compared).collect();
    if let Some((edits, len, name)) = known.iter().min()
        && edits * 2 <= *len
    {
        return format!("did you mean {name}?");
    }
    let known = known.into_iter().map(|(_, _, name)| name).collect();
    format!("did you mean {}?", alternatives(known))
}

/// Returns the question whether the one of `choices` with a typing error was meant, or otherwise all of them. A word
/// that is only similar is not proposed, because it may have the opposite meaning.
pub(super) fn choice_hint(word: &str, choices: Vec<String>) -> String {
    let is_meant = |choice: &&String| {
        let name = choice.trim_matches('"');
        strsim::levenshtein(word, name) * 3 <= name.len()
    };
    match choices.iter().find(is_meant) {
        Some(choice) => format!("did you mean {choice}?"),
        None => format!("use {}", alternatives(choices)),
    }
}

/// Returns the words with commas and an "or" between them.
fn alternatives(mut words: Vec<String>) -> String {
    let last = words.pop().unwrap_or_default();
    match words.is_empty() {
        true => last,
        false => format!("{} or {last}", words.join(", ")),
    }
}
