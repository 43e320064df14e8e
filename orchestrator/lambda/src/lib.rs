//! The engine as Lambda functions: AWS event envelopes in, messages of the engine out.
