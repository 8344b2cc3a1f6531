//! One stream's bytes, both ways: an end stays an end, an abort stays an abort.
//!
//! Flow control is honest: capacity is given back only after the local write, and asked for only when there is something to send.

use std::future::poll_fn;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

/// Who cut the connection off.
#[derive(Debug)]
enum Cut {
    Gateway,
    Target,
}

/// Moves bytes until both directions have ended or one side aborts; then the other side sees an abort too.
pub async fn splice(body: RecvStream, mut answer: SendStream<Bytes>, mut target: TcpStream) {
    let (reader, writer) = target.split();
    let moved = tokio::try_join!(inwards(body, writer), outwards(reader, &mut answer));
    if let Err(cut) = moved {
        if matches!(cut, Cut::Target) {
            answer.send_reset(Reason::CONNECT_ERROR);
        }
        let _ = socket2::SockRef::from(&target).set_linger(Some(Duration::ZERO));
    }
}

/// From the gateway to the target.
async fn inwards(mut body: RecvStream, mut writer: WriteHalf<'_>) -> Result<(), Cut> {
    while let Some(data) = body.data().await {
        let data = data.map_err(|_| Cut::Gateway)?;
        writer.write_all(&data).await.map_err(|_| Cut::Target)?;
        body.flow_control().release_capacity(data.len()).map_err(|_| Cut::Gateway)?;
    }
    // A target that is gone already has had its end.
    let _ = writer.shutdown().await;
    Ok(())
}

/// From the target to the gateway.
async fn outwards(reader: ReadHalf<'_>, answer: &mut SendStream<Bytes>) -> Result<(), Cut> {
    loop {
        tokio::select! {
            ready = reader.readable() => ready.map_err(|_| Cut::Target)?,
            _ = poll_fn(|cx| answer.poll_reset(cx)) => return Err(Cut::Gateway),
        }
        // No buffer is held while idle: a thousand sleeping streams cost nothing.
        let mut buffer = BytesMut::with_capacity(super::FRAME as usize);
        match reader.try_read_buf(&mut buffer) {
            Ok(0) => return answer.send_data(Bytes::new(), true).map_err(|_| Cut::Gateway),
            Ok(_) => send(answer, buffer.freeze()).await?,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(Cut::Target),
        }
    }
}

async fn send(answer: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), Cut> {
    while !data.is_empty() {
        answer.reserve_capacity(data.len());
        let granted = poll_fn(|cx| answer.poll_capacity(cx)).await;
        let granted = granted.and_then(Result::ok).ok_or(Cut::Gateway)?;
        let piece = data.split_to(granted.min(data.len()));
        answer.send_data(piece, false).map_err(|_| Cut::Gateway)?;
    }
    Ok(())
}
