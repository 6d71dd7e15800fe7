//! The threads that read the store's file.
//!
//! Takes: jobs. Gives: their results, when they come. Errors: `StoreError::Busy` when too many wait.
//! Bounds: `limits_of_memory::STORE_READERS` threads, `limits_of_memory::STORE_ASKED_MAX` jobs.
//! Why not the runtime's threads for what blocks: there are hundreds, and the C library gives each a
//! heap of its own, so that pages of the file lay about in all of them, several times what is set.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::mail::limits_of_memory::{STORE_ASKED_MAX, STORE_READERS};
use crate::store::StoreError;

/// The threads; they end when it is dropped.
pub struct Readers {
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Readers {
    /// Starts them.
    pub fn start() -> std::io::Result<Readers> {
        let (jobs, work) = sync_channel(STORE_ASKED_MAX);
        let work = Arc::new(Mutex::new(work));
        let thread = || {
            let work = Arc::clone(&work);
            let builder = std::thread::Builder::new().name("store-read".to_owned());
            builder.spawn(move || while one(&work) {})
        };
        let threads = (0..STORE_READERS).map(|_| thread()).collect::<Result<_, _>>()?;
        Ok(Readers { jobs: Some(jobs), threads })
    }

    /// Does it on one of them. What nobody waits for any more is left out.
    pub async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (done, answer) = oneshot::channel();
        let job = Box::new(move || {
            if !done.is_closed() {
                let _ = done.send(job());
            }
        });
        let jobs = self.jobs.as_ref().ok_or(StoreError::Busy)?;
        jobs.try_send(job).map_err(|_| StoreError::Busy)?;
        answer.await.map_err(|_| StoreError::Failed("its file is damaged".to_owned()))
    }
}

/// The next job; false when there will be none.
fn one(work: &Mutex<Receiver<Job>>) -> bool {
    let job = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
    let Ok(job) = job else { return false };
    // Why: redb panics on some damage that it finds late; that must cost an answer, not a thread.
    let _ = catch_unwind(AssertUnwindSafe(job));
    true
}

impl Drop for Readers {
    fn drop(&mut self) {
        drop(self.jobs.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_come_and_a_job_that_panics_costs_its_own_alone() {
        let readers = Readers::start().unwrap();
        for _ in 0..STORE_READERS * 2 {
            let answer = readers.ask(|| Vec::<u8>::new().remove(0)).await;
            assert!(matches!(answer, Err(StoreError::Failed(_))));
        }
        let answers = futures_of((0..100).map(|n| readers.ask(move || n * 2)).collect()).await;
        assert_eq!(answers, (0..100).map(|n| Ok(n * 2)).collect::<Vec<_>>());
    }

    async fn futures_of<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
        let mut all = Vec::new();
        for future in futures {
            all.push(future.await);
        }
        all
    }

    /// Goal: what waits is bounded. Method: every thread is kept busy, then the room is filled.
    #[tokio::test]
    async fn too_many_are_told_so() {
        let readers = Readers::start().unwrap();
        let jobs = readers.jobs.clone().unwrap();
        let (open, closed) = std::sync::mpsc::channel::<()>();
        let (began, begun) = std::sync::mpsc::channel();
        let closed = Arc::new(Mutex::new(closed));
        for _ in 0..STORE_READERS {
            let (began, closed) = (began.clone(), Arc::clone(&closed));
            let kept = move || {
                began.send(()).unwrap();
                let _ = closed.lock().unwrap().recv();
            };
            assert!(jobs.try_send(Box::new(kept)).is_ok());
        }
        (0..STORE_READERS).for_each(|_| begun.recv().unwrap());
        for _ in 0..STORE_ASKED_MAX {
            assert!(jobs.try_send(Box::new(|| {})).is_ok());
        }
        assert_eq!(readers.ask(|| 1).await, Err(StoreError::Busy));
        drop((open, jobs));
    }
}
