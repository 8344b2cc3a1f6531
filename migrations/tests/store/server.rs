//! A fresh database on a PostgreSQL server of this process's own for each who asks.

mod postgres;

use std::sync::OnceLock;
use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection};
use tokio::sync::Mutex;

pub use postgres::Server;

/// The URL of a database nobody has touched.
pub async fn empty_postgres() -> Option<String> {
    if !postgres::is_wanted() {
        return None;
    }
    static SERVER: OnceLock<Server> = OnceLock::new();
    static ONE_BY_ONE: Mutex<()> = Mutex::const_new(());
    let _turn = ONE_BY_ONE.lock().await;
    let server = SERVER.get_or_init(Server::start);
    Some(server.database().await)
}

impl Server {
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
