//! Where a service keeps its file, and where the watcher that it starts keeps everything else.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use orphand::state::{Folders, read_regular};
use rustix::process::geteuid;

use super::job::{InstalledUnit, Job, Scope, UnsupportedPath};
use super::{launchd, systemd};
use crate::cli::config_file::Config;

/// The most that a service file is read of: bytes.
pub(super) const LARGEST: u64 = 1_000_000;

/// Who starts the service, and starts it again when it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceManager {
    Launchd,
    Systemd,
}

impl ServiceManager {
    /// The one of this system.
    pub(super) const OURS: ServiceManager = match cfg!(target_os = "macos") {
        true => ServiceManager::Launchd,
        false => ServiceManager::Systemd,
    };

    pub(super) fn name(self) -> &'static str {
        match self {
            ServiceManager::Launchd => "launchd",
            ServiceManager::Systemd => "systemd",
        }
    }
}

/// One service: by whom, for whom, and with which folders.
#[derive(Clone, Debug)]
pub(super) struct ServicePaths {
    pub(super) manager: ServiceManager,
    pub(super) scope: Scope,
    /// Of the user, whatever the scope.
    home: PathBuf,
    /// Before the paths of the whole machine: an image that is being built, or a test.
    machine_root: PathBuf,
}

impl ServicePaths {
    /// As the environment says. Nothing where no home is known.
    pub(super) fn new(supervisor: ServiceManager, scope: Scope) -> Option<ServicePaths> {
        let home = absolute_variable("HOME").or_else(|| {
            (scope == Scope::System).then(|| match supervisor {
                ServiceManager::Launchd => PathBuf::from("/var/root"),
                ServiceManager::Systemd => PathBuf::from("/root"),
            })
        })?;
        let machine = absolute_variable("ORPHAND_SERVICE_ROOT").unwrap_or_else(|| "/".into());
        Some(ServicePaths {
            manager: supervisor,
            scope,
            home,
            machine_root: machine,
        })
    }

    /// What people call the file.
    pub(super) fn kind_name(&self) -> &'static str {
        match (self.manager, self.scope) {
            (ServiceManager::Launchd, Scope::User) => "agent",
            (ServiceManager::Launchd, Scope::System) => "daemon",
            (ServiceManager::Systemd, _) => "unit",
        }
    }

    /// What the supervisor calls the service.
    pub(super) fn name(&self) -> &'static str {
        match self.manager {
            ServiceManager::Launchd => launchd::LABEL,
            ServiceManager::Systemd => systemd::UNIT,
        }
    }

    /// `orphand service VERB` for this place, as it is typed.
    pub(super) fn command(&self, verb: &str) -> String {
        let mut command = format!("orphand service {verb}");
        if self.scope == Scope::System {
            command.push_str(" --system");
        }
        if self.manager != ServiceManager::OURS {
            command.push_str(&format!(" --{}", self.manager.name()));
        }
        command
    }

    /// The service file.
    pub(super) fn file(&self) -> PathBuf {
        match self.manager {
            ServiceManager::Launchd => self.folder().join(format!("{}.plist", launchd::LABEL)),
            ServiceManager::Systemd => self.folder().join(systemd::UNIT),
        }
    }

    fn folder(&self) -> PathBuf {
        match (self.manager, self.scope) {
            (ServiceManager::Launchd, Scope::User) => self.home.join("Library/LaunchAgents"),
            (ServiceManager::Launchd, Scope::System) => self.below_machine_root("Library/LaunchDaemons"),
            (ServiceManager::Systemd, Scope::User) => self.config_home().join("systemd/user"),
            (ServiceManager::Systemd, Scope::System) => self.below_machine_root("etc/systemd/system"),
        }
    }

    fn below_machine_root(&self, below: &str) -> PathBuf {
        self.machine_root.join(below)
    }

    fn config_home(&self) -> PathBuf {
        absolute_variable("XDG_CONFIG_HOME").unwrap_or_else(|| self.home.join(".config"))
    }

    /// What stands where Homebrew puts its own service file for orphand.
    pub(super) fn homebrew_file(&self) -> Option<PathBuf> {
        let places = match self.manager {
            ServiceManager::Launchd => {
                let file = "homebrew.mxcl.orphand.plist";
                [
                    self.home.join("Library/LaunchAgents").join(file),
                    self.below_machine_root("Library/LaunchDaemons").join(file),
                ]
            }
            ServiceManager::Systemd => {
                let file = "homebrew.orphand.service";
                [
                    self.config_home().join("systemd/user").join(file),
                    self.below_machine_root("etc/systemd/system").join(file),
                ]
            }
        };
        places
            .into_iter()
            .find(|file| file.symlink_metadata().is_ok())
    }

    /// Where its watcher keeps what is its own. `ours` are the folders of this process.
    pub(super) fn folders(&self, ours: &Folders) -> Folders {
        let (state, runtime) = match (self.scope, self.manager) {
            (Scope::User, _) => return ours.clone(),
            (Scope::System, ServiceManager::Launchd) => {
                let state = self.below_machine_root("Library/Application Support/orphand");
                (state.clone(), state)
            }
            (Scope::System, ServiceManager::Systemd) => (
                self.below_machine_root("var/lib/orphand"),
                self.below_machine_root("run/orphand"),
            ),
        };
        Folders {
            state: Some(state),
            runtime: Some(runtime),
        }
    }

    /// The configuration file that its watcher reads when none is named.
    pub(super) fn usual_config(&self) -> Option<PathBuf> {
        match self.scope {
            Scope::User => Config::usual_path(),
            Scope::System => Some(self.below_machine_root("etc/orphand/config.toml")),
        }
    }

    /// The log that its watcher writes by itself; under systemd it is the journal's.
    pub(super) fn log(&self, ours: &Folders) -> Option<PathBuf> {
        if cfg!(target_os = "macos") {
            return Some(self.logs().join("orphand.log"));
        }
        Some(self.folders(ours).state?.join("orphand.log"))
    }

    /// Where launchd puts what a crash prints.
    pub(super) fn crash_log(&self) -> PathBuf {
        self.logs().join("crash.log")
    }

    /// Console.app shows what lies here.
    fn logs(&self) -> PathBuf {
        match self.scope {
            Scope::User => self.home.join("Library/Logs/orphand"),
            Scope::System => self.below_machine_root("var/root/Library/Logs/orphand"),
        }
    }

    /// The variables that its watcher needs.
    fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        let fixed: &[(&'static str, &str)] = match (self.scope, self.manager) {
            (Scope::User, _) => return self.shell_folders(),
            (Scope::System, ServiceManager::Launchd) => &[
                ("HOME", "/var/root"),
                ("XDG_CONFIG_HOME", "/etc"),
                ("XDG_STATE_HOME", "/Library/Application Support"),
            ],
            (Scope::System, ServiceManager::Systemd) => &[
                ("XDG_CONFIG_HOME", "/etc"),
                ("XDG_STATE_HOME", "/var/lib"),
                ("XDG_RUNTIME_DIR", "/run"),
            ],
        };
        fixed
            .iter()
            .map(|(name, value)| (*name, PathBuf::from(value)))
            .collect()
    }

    /// Those that are set and lead elsewhere than without: else the watcher and the commands that
    /// are typed would each look in other folders.
    fn shell_folders(&self) -> Vec<(&'static str, PathBuf)> {
        let usual_state = match cfg!(target_os = "macos") {
            true => None,
            false => Some(self.home.join(".local/state")),
        };
        let mut known = vec![
            ("XDG_CONFIG_HOME", Some(self.home.join(".config"))),
            ("XDG_STATE_HOME", usual_state),
        ];
        if self.manager == ServiceManager::Launchd {
            // systemd sets this one itself, for each login.
            known.push(("XDG_RUNTIME_DIR", None));
        }
        let set = |(name, usual): (&'static str, Option<PathBuf>)| {
            let value = absolute_variable(name)?;
            (Some(&value) != usual.as_ref()).then_some((name, value))
        };
        known.into_iter().filter_map(set).collect()
    }

    /// What is to be started here.
    pub(super) fn job(&self, program: PathBuf, config: Option<PathBuf>) -> Job {
        Job {
            scope: self.scope,
            program,
            config,
            environment: self.environment(),
            crash_log: self.installed_path(&self.crash_log()),
            run_as: None,
        }
    }

    /// A path as it is called where the service runs.
    fn installed_path(&self, path: &Path) -> PathBuf {
        match (self.scope, path.strip_prefix(&self.machine_root)) {
            (Scope::System, Ok(below)) => Path::new("/").join(below),
            _ => path.to_owned(),
        }
    }

    /// The service file for `job`.
    pub(super) fn render(&self, job: &Job) -> Result<String, UnsupportedPath> {
        match self.manager {
            ServiceManager::Launchd => launchd::render(job),
            ServiceManager::Systemd => systemd::render(job),
        }
    }

    /// What a service file says.
    pub(super) fn read(&self, file: &str) -> Option<InstalledUnit> {
        match self.manager {
            ServiceManager::Launchd => launchd::read(file),
            ServiceManager::Systemd => systemd::read(file),
        }
    }

    /// The service file that is there. None where there is none.
    pub(super) fn installed(&self) -> io::Result<Option<Vec<u8>>> {
        match read_regular(&self.file(), LARGEST) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the home directory is this user's: after `sudo` it may be another's, and a service
    /// file of root's there would be refused by launchd and could not be removed by its user.
    pub(super) fn is_home_ours(&self) -> bool {
        let owner = fs::metadata(&self.home).map(|home| home.uid());
        owner.map_or(true, |owner| owner == geteuid().as_raw())
    }

    pub(super) fn home(&self) -> &Path {
        &self.home
    }
}

/// A folder that the environment names; a relative one names none.
fn absolute_variable(name: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(env::var_os(name)?);
    folder.is_absolute().then_some(folder)
}
