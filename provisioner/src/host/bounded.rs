//! How much a tenant's API server can make us read: an HTTP middleware that counts what answers bring and breaks them off.
//!
//! A tenant fills its API server with what it likes, and an `APIService` of its own answers in its stead. An answer is bounded as a whole,
//! a watch line by line (it may last for hours), and all answers that one client has open at once together. There is no decompression
//! in this client, so bytes read are bytes held.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use http::{Request, Response};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use thiserror::Error;
use tower::{BoxError, Layer, Service};

/// The most of one answer, and of all answers that a client has open together, bytes.
pub const ANSWER: usize = 8 << 20;
/// The most of one line of a watch, bytes: etcd takes no object above 1.5 MiB, and no node has a quarter of that.
pub const LINE: usize = 1 << 20;

/// An answer was broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it is longer than {limit} bytes")]
pub struct TooLong {
    limit: usize,
}

/// Bounds every answer of the client it is laid around.
#[derive(Clone, Debug, Default)]
pub struct BoundedLayer {
    held: Arc<AtomicUsize>,
}

impl<S> Layer<S> for BoundedLayer {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Bounded { inner, held: Arc::clone(&self.held) }
    }
}

/// The service that [`BoundedLayer`] makes.
#[derive(Clone, Debug)]
pub struct Bounded<S> {
    inner: S,
    held: Arc<AtomicUsize>,
}

impl<S, I, O> Service<Request<I>> for Bounded<S>
where
    S: Service<Request<I>, Response = Response<O>>,
    S::Future: Send + 'static,
{
    type Response = Response<BoundedBody<O>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<I>) -> Self::Future {
        let is_watch = request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
        let held = Arc::clone(&self.held);
        let bound = move |body| BoundedBody { body, is_watch, read: 0, held };
        self.inner.call(request).map_ok(|answer| answer.map(bound)).boxed()
    }
}

/// An answer's body that ends with [`TooLong`] when there is too much of it.
#[derive(Debug)]
pub struct BoundedBody<B> {
    body: B,
    is_watch: bool,
    /// Of a watch the bytes of the line that has begun, of any other answer all.
    read: usize,
    /// What all answers of the client hold that are no watches.
    held: Arc<AtomicUsize>,
}

impl<B> BoundedBody<B> {
    fn count(&mut self, data: &[u8]) -> Result<(), TooLong> {
        if self.is_watch {
            return self.count_lines(data);
        }
        self.read += data.len();
        let held = self.held.fetch_add(data.len(), Ordering::Relaxed) + data.len();
        if held > ANSWER { Err(TooLong { limit: ANSWER }) } else { Ok(()) }
    }

    fn count_lines(&mut self, data: &[u8]) -> Result<(), TooLong> {
        for (number, part) in data.split(|byte| *byte == b'\n').enumerate() {
            self.read = if number == 0 { self.read + part.len() } else { part.len() };
            if self.read > LINE {
                return Err(TooLong { limit: LINE });
            }
        }
        Ok(())
    }
}

impl<B> Drop for BoundedBody<B> {
    fn drop(&mut self) {
        if !self.is_watch {
            self.held.fetch_sub(self.read, Ordering::Relaxed);
        }
    }
}

impl<B> Body for BoundedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        let counted = frame.data_ref().map_or(Ok(()), |data| self.count(data));
        Poll::Ready(Some(counted.map(|()| frame).map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whether an error, or one of its causes, is that an answer was broken off.
pub fn is_too_long(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<TooLong>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(is_watch: bool, held: &Arc<AtomicUsize>) -> BoundedBody<()> {
        BoundedBody { body: (), is_watch, read: 0, held: Arc::clone(held) }
    }

    #[test]
    fn an_answer_is_bounded_as_a_whole_and_all_open_ones_together() {
        let held = Arc::default();
        let mut one = body(false, &held);
        let half = vec![b'\n'; ANSWER / 2];
        assert_eq!((one.count(&half), one.count(&half)), (Ok(()), Ok(())));
        assert_eq!(body(false, &held).count(b"x"), Err(TooLong { limit: ANSWER }), "the other one holds all there is");
        assert_eq!(one.count(b"x"), Err(TooLong { limit: ANSWER }));
        drop(one);
        assert_eq!((held.load(Ordering::Relaxed), body(false, &held).count(&half)), (0, Ok(())));
    }

    #[test]
    fn a_watch_is_bounded_line_by_line() {
        let held = Arc::default();
        let mut watch = body(true, &held);
        let line = [vec![b'x'; LINE - 1], b"\n".to_vec()].concat();
        for _ in 0..32 {
            assert_eq!(watch.count(&line), Ok(()), "it may last for hours");
        }
        assert_eq!(watch.count(&line[..LINE / 2]), Ok(()));
        assert_eq!(watch.count(&[&line[LINE / 2..], b"next"].concat()), Ok(()));
        assert_eq!(watch.count(&vec![b'x'; LINE - 3]), Err(TooLong { limit: LINE }), "a line goes on over frames");
        assert_eq!(held.load(Ordering::Relaxed), 0);
    }
}
