//! Fills the placeholders of a service file. No I/O.

/// Replaces each `{{NAME}}` with its value. Text in a value that looks like a placeholder is not replaced.
pub(super) fn filled(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, name, after)) = next_placeholder(rest) {
        out.push_str(before);
        let value = values.iter().find(|(known, _)| *known == name);
        debug_assert!(value.is_some(), "{name} has no value");
        out.push_str(value.map_or("", |(_, value)| value));
        rest = after;
    }
    out + rest
}

fn next_placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("{{")?;
    let (name, after) = rest.split_once("}}")?;
    Some((before, name, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_in_a_value_are_not_replaced() {
        let values = [("A", "{{B}}"), ("B", "b")];
        assert_eq!(filled("<{{A}}|{{B}}>", &values), "<{{B}}|b>");
        assert_eq!(
            filled("no blank, {one} brace", &values),
            "no blank, {one} brace"
        );
    }
}
