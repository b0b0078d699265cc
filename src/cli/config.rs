// stub until the real one is in
use orphand::decide::policy::*;
use orphand::decide::retention::Limits;
use orphand::decide::temp_name::{NameError, Names};
use std::path::{Path, PathBuf};
use std::time::Duration;
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RuleSettings {
    pub names: Option<Vec<String>>,
    pub writers: Option<Vec<String>>,
    pub recursive: Option<bool>,
    pub grace: Option<Duration>,
    pub fixed_name_grace: Option<Duration>,
    pub closed: Option<Closed>,
    pub open: Option<Open>,
    pub sole_copy: Option<SoleCopy>,
    pub action: Option<Action>,
    pub network: Option<Vec<String>>,
    pub broad: Option<bool>,
}
pub(crate) type SettingsError = NameError;
impl RuleSettings {
    pub fn over(self, l: &RuleSettings) -> RuleSettings {
        RuleSettings {
            names: self.names.or(l.names.clone()),
            writers: self.writers.or(l.writers.clone()),
            recursive: self.recursive.or(l.recursive),
            grace: self.grace.or(l.grace),
            fixed_name_grace: self.fixed_name_grace.or(l.fixed_name_grace),
            closed: self.closed.or(l.closed),
            open: self.open.or(l.open),
            sole_copy: self.sole_copy.or(l.sole_copy),
            action: self.action.or(l.action),
            network: self.network.or(l.network.clone()),
            broad: self.broad.or(l.broad),
        }
    }
    pub fn policy(&self) -> Result<Policy, SettingsError> {
        let d = Graces::default();
        let random = self.grace.unwrap_or(d.random);
        let fixed = self.fixed_name_grace.or(self.grace).unwrap_or(d.fixed);
        Ok(Policy {
            names: Names::new(
                self.names.as_deref().unwrap_or_default(),
                self.writers.as_deref().unwrap_or_default(),
            )?,
            grace: Graces { random, fixed },
            closed: self.closed.unwrap_or_default(),
            open: self.open.unwrap_or_default(),
            sole_copy: self.sole_copy.unwrap_or_default(),
            action: self.action.unwrap_or_default(),
            recursive: self.recursive.unwrap_or_default(),
            trusted_file_systems: self.network.clone().unwrap_or_default(),
        })
    }
}
#[derive(Clone, Debug)]
pub(crate) struct WatchRule {
    pub path: PathBuf,
    pub settings: RuleSettings,
}
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    pub defaults: RuleSettings,
    pub watch: Vec<WatchRule>,
    pub quarantine: Limits,
    pub path: Option<PathBuf>,
}
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConfigError(String);
impl Config {
    pub fn load(_: Option<&Path>) -> Result<Config, ConfigError> {
        Ok(Config::default())
    }
}
