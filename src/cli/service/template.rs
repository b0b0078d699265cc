//! Fills the blanks of a service file. Pure.

/// The text with a value for each `{{NAME}}`. A value is taken as it is: what looks like a blank in
/// it is none.
pub(super) fn filled(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, name, after)) = next_blank(rest) {
        out.push_str(before);
        let value = values.iter().find(|(known, _)| *known == name);
        debug_assert!(value.is_some(), "{name} has no value");
        out.push_str(value.map_or("", |(_, value)| value));
        rest = after;
    }
    out + rest
}

fn next_blank(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("{{")?;
    let (name, after) = rest.split_once("}}")?;
    Some((before, name, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_not_read_again() {
        let values = [("A", "{{B}}"), ("B", "b")];
        assert_eq!(filled("<{{A}}|{{B}}>", &values), "<{{B}}|b>");
        assert_eq!(
            filled("no blank, {one} brace", &values),
            "no blank, {one} brace"
        );
    }
}
