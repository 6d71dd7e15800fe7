//! Arguments in, exit code out; nothing else.

use std::process::ExitCode;

use mimalloc::MiMalloc;

// Why not the system's: a message makes some hundred small allocations, freed by another thread as
// often as not, and those of the C library took a seventh of the time of a message.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    replyguard::cmd::main()
}
