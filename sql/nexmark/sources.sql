-- Nexmark's three streams, from the built-in generator. Add events = 'N' to end them, rate = 'N' to slow them down.
CREATE SOURCE person WITH (connector = 'nexmark', type = 'person');
CREATE SOURCE auction WITH (connector = 'nexmark', type = 'auction');
CREATE SOURCE bid WITH (connector = 'nexmark', type = 'bid');
