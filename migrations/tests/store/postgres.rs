//! A PostgreSQL server of this process's own on a unix socket. Without SQL, so that tests of other crates can have one too.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// A PostgreSQL server on a unix socket in a folder of its own. A shell holds it and ends it when the pipe to this process closes, so
/// nothing stays behind, however this process ends.
pub struct Server {
    pub folder: PathBuf,
    _pipe: ChildStdin,
    _shell: Child,
}

const SCRIPT: &str = r#"
set -u
run=""
if [ "$(id -u)" = 0 ]; then chown postgres "$1"; run="setpriv --reuid=postgres --regid=postgres --init-groups"; fi
cd "$1"
$run "$2/initdb" -D "$1/data" -A trust -U postgres --no-sync -E UTF8 --locale=C >"$1/log" 2>&1 || exit 1
while true; do
    $run "$2/postgres" -D "$1/data" -k "$1" -c listen_addresses= -c fsync=off -c max_connections=200 \
        -c shared_buffers=16MB -c log_min_messages=error </dev/null >>"$1/log" 2>&1 &
    pid=$!
    read -r word || word=end
    kill -INT $pid 2>/dev/null
    wait $pid
    if [ "$word" = end ]; then rm -rf "$1"; exit 0; fi
    read -r word || { rm -rf "$1"; exit 0; }
done
"#;

/// Whether tests on PostgreSQL are wanted.
pub fn is_wanted() -> bool {
    std::env::var("PH_TEST_PG").as_deref() != Ok("0")
}

impl Server {
    pub fn start() -> Self {
        let bin = std::env::var("PH_TEST_PG_BIN").unwrap_or_else(|_| "/usr/lib/postgresql/15/bin".to_owned());
        assert!(Path::new(&bin).join("postgres").exists(), "install postgresql or set PH_TEST_PG=0: nothing in {bin}");
        let folder = tempfile::tempdir().unwrap().keep();
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "sh"]).arg(&folder).arg(&bin).stdin(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        let pipe = shell.stdin.take().unwrap();
        Self { folder, _pipe: pipe, _shell: shell }
    }

    /// Stops the server, or starts it again.
    pub fn toggle(&mut self) {
        self._pipe.write_all(b"toggle\n").unwrap();
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&user=postgres", self.folder.display())
    }
}
