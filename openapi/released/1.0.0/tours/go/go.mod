module shop.example/tour

go 1.19

require shop.example/clients/productgateway v0.0.0

replace shop.example/clients/productgateway => ./client
