//! The servers without the guard: they run, and their bounces and replies are what we take them
//! for. When one of these fails, the scenarios with the guard prove nothing.

mod dovecot;
mod exim;
mod forwards;
mod harness;
mod postfix;
