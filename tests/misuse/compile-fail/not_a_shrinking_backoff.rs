use dormouse_core::RetryPolicy;

const EAGER: RetryPolicy = RetryPolicy::DEFAULT.backoff_coefficient(0.5);

fn main() {
    drop(EAGER);
}
