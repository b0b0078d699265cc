//! The configuration file, as any bytes.

use std::path::Path;

use crate::cli::config::Config;

pub(crate) fn check(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    match Config::parse(text, Path::new("c.toml"), Some(Path::new("/home/ann"))) {
        Ok(config) => {
            for rule in &config.watch {
                assert!(rule.path.is_absolute(), "{:?}", rule.path);
                // What is read without a mistake makes a rule.
                let settings = rule.settings.clone().over(&config.defaults);
                settings.policy().expect("a rule");
            }
        }
        Err(error) => {
            let (line, column) = error.position.expect("a place");
            let length = text
                .split('\n')
                .nth(line - 1)
                .map(|line| line.chars().count());
            assert!(
                length.is_some_and(|length| (1..=length + 1).contains(&column)),
                "{error}"
            );
            assert!(!error.message.is_empty());
        }
    }
}
