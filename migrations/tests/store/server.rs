//! A PostgreSQL server of this process's own, with a fresh database for each who asks.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection};
use tokio::sync::Mutex;

/// The URL of a database nobody has touched.
pub async fn empty_postgres() -> Option<String> {
    if std::env::var("PH_TEST_PG").as_deref() == Ok("0") {
        return None;
    }
    static SERVER: OnceLock<Server> = OnceLock::new();
    static ONE_BY_ONE: Mutex<()> = Mutex::const_new(());
    let _turn = ONE_BY_ONE.lock().await;
    let server = SERVER.get_or_init(Server::start);
    Some(server.database().await)
}

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

    pub async fn database(&self) -> String {
        let mut connection = self.connect().await;
        let name = format!("t{}", uuid::Uuid::now_v7().simple());
        connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        self.url(&name)
    }

    pub async fn connect(&self) -> PgConnection {
        for _ in 0..600 {
            if let Ok(connection) = PgConnection::connect(&self.url("postgres")).await {
                return connection;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        panic!("the server does not answer: {log}");
    }
}
