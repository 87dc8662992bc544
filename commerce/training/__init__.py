"""Training of staff: required reading, quizzes about articles, and the certificates that give rights."""
