"""Midstream: a bidirectional WebSocket server for AI-agent runs."""
