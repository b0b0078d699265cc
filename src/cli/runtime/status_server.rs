//! Answers `orphand status` through a socket in the runtime folder, which only this user may enter.
//!
//! The answer comes from memory without any system call on a root, so a root that hangs blocks no client. The server
//! reads nothing: it sends its answer to each client that connects.

use std::fs;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cli::output::watch_status::WatchStatus;
use crate::cli::runtime::status_answer::answer;

/// The prefix of the name of a socket, before the pid.
pub(crate) const PREFIX: &str = "watch-";
/// The suffix of the name of a socket, after the pid.
pub(crate) const SUFFIX: &str = ".sock";

/// The server, which answers until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    path: PathBuf,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The time limit for a client to read its answer.
const READ_LIMIT: Duration = Duration::from_secs(2);

impl Server {
    /// Starts the server, with its socket in the folder `runtime`.
    pub(crate) fn start(runtime: &Path, status: Arc<WatchStatus>) -> io::Result<Server> {
        let make = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(runtime);
        make?;
        let path = runtime.join(format!("{PREFIX}{}{SUFFIX}", std::process::id()));
        // A killed process with the same pid may have left its socket.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        // RACE: until the next line the socket has the mode by the umask. Worst case: if the folder existed before and
        // is open to other users, one of them reads the status.
        let _ = fs::set_permissions(&path, fs::Permissions::from_mode(0o600));
        let stopping = Arc::new(AtomicBool::new(false));
        let thread = {
            let stopping = Arc::clone(&stopping);
            let thread = std::thread::Builder::new().name("orphand-status".into());
            thread.spawn(move || serve(&listener, &status, &stopping))?
        };
        Ok(Server {
            path,
            stopping,
            thread: Some(thread),
        })
    }
}

fn serve(listener: &UnixListener, status: &WatchStatus, stopping: &AtomicBool) {
    for client in listener.incoming() {
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        let result = client.and_then(|mut client| {
            client.set_write_timeout(Some(READ_LIMIT))?;
            writeln!(client, "{}", serde_json::to_string(&answer(status))?)?;
            client.shutdown(Shutdown::Write)
        });
        if let Err(error) = result {
            log::debug!("status: {error}");
            // The cause may be a lack of file descriptors: pause before the next client.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // The thread waits for a client. This connection wakes it, and it ends.
        let woken = std::os::unix::net::UnixStream::connect(&self.path).is_ok();
        let _ = fs::remove_file(&self.path);
        if let (true, Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}
